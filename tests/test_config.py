"""Configuration files: what is wrong is named, all of it, with its line."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hardware import SMALL_MACHINE, fused_dict, machine_dict
from hypothesis import given
from hypothesis import strategies as st

from nce_sim.config.bundle import bundled
from nce_sim.config.loader import load_yaml
from nce_sim.config.machine import list_machines, load_machine
from nce_sim.config.machine_schema import MachineConfig
from nce_sim.config.technology import Figure, Technology
from nce_sim.errors import InputError

SMALL = bundled("hw_configs") / "nce-small.yaml"
FUSED = bundled("hw_configs") / "nce-fused.yaml"


def refusal(folder: Path, text: str) -> str:
    """Return what the loader says of a file."""
    path = folder / "machine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as error:
        load_machine(path)
    assert str(path) in str(error.value)
    return str(error.value)


def edited(old: str, new: str, file: Path = SMALL) -> tuple[str, int]:
    """Return nce-small (or another) with the first `old` replaced, and the line where it stands."""
    text = file.read_text()
    before, found, after = text.partition(old)
    assert found
    return before + new + after, before.count("\n") + 1


@pytest.mark.parametrize("name", ["nce-28nm", "nce-fused", "nce-small", "os-32x32"])
def test_bundled_machines_load(name):
    machine = load_machine(name)
    assert machine.config.name == name
    assert name in list_machines()
    assert machine.config.number_format in machine.technology.mac


def test_a_machine_loads_by_path_with_a_technology_beside_it(tmp_path):
    table = (bundled("hw_configs") / "technology" / "28nm.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(table.replace("name: 28nm", "name: mine"))
    (tmp_path / "m.yaml").write_text(edited("technology: 28nm", "technology: mine.yaml")[0])
    assert load_machine(tmp_path / "m.yaml").technology.name == "mine"
    assert load_machine(str(tmp_path / "m.yaml")).technology.name == "mine"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name: nce-small", "colour: red\nname: nce-small", "colour: unknown key"),
        ("    rows: 8", "    rows: -8", "protected.array.rows: should be greater than 0 (found -8"),
        ("    rows: 8", "    rows: 0", "protected.array.rows: should be greater than 0"),
        ("    rows: 8", "    rows: 8.5", "protected.array.rows: "),
        ("    rows: 8", "    rows: many", "protected.array.rows: "),
        ("    rows: 8", "    rows: true", "protected.array.rows: "),
        ("    rows: 8", "    rows:", "protected.array.rows: "),
        ("    rows: 8", "    rows: [8]", "protected.array.rows: "),
        ("clock_mhz: 200", "clock_mhz: .nan", "clock_mhz: should be a finite number (found nan"),
        ("clock_mhz: 200", "clock_mhz: .inf", "clock_mhz: should be a finite number"),
        ("clock_mhz: 200", "clock_mhz: yes", "clock_mhz: "),
        ("clock_mhz: 200", "clock_mhz: 0", "clock_mhz: should be greater than 0"),
        ("name: nce-small", "name: 7", "name: should be a valid string (found 7)"),
        ("dataflow: broadcast", "dataflow: magic", "dataflow: should be 'broadcast' or"),
        ("    scheme: temporal_tmr", "    scheme: secded", "protected.array.scheme: should be"),
        ("    scheme: secded", "    scheme: tmr", "protected.buffers.scheme: should be"),
        ("  latency_cycles: 20", "  latency_cycles: -1", "memory.latency_cycles: "),
        ("layout: packed", "layout: loose", "layout: should be 'packed' or 'holes' (found 'loose'"),
        ("weights: duplicate", "weights: shared", "weights: should be 'duplicate' or"),
        ("overflow: false", "overflow: 0", "overflow: should be a valid boolean (found 0)"),
        ("arbitration: round_robin", "arbitration: fair", "bus.arbitration: should be"),
        ("codec_cycles: 1", "codec_cycles: -1", "protected.buffers.codec_cycles: should be"),
        ("outstanding_requests: 16", "outstanding_requests: 0", "memory.outstanding_requests: "),
        ("row_bytes: 2048", "row_bytes: 0", "memory.row_bytes: should be greater than 0"),
        ("    weights: 0.95", "    weights: 0", "memory.efficiency.weights: should be greater"),
        ("    maps: 0.85", "    maps: 1.01", "memory.efficiency.maps: should be less than or"),
        ("    writes: 0.85", "    writes: -1", "memory.efficiency.writes: should be greater than"),
        ("refresh_interval_cycles: 781", "refresh_interval_cycles: 0", "memory.refresh_interval"),
    ],
)  # fmt: skip
def test_one_mistake_is_named_with_its_line(tmp_path, old, new, said):
    text, line = edited(old, new)
    message = refusal(tmp_path, text)
    assert f"line {line}: {said}" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "  quantum_bytes: 512", "  quantum_bytes: 15",
            r"bus\.quantum_bytes: .*at least what the bus moves in a cycle, 16",
        ),
        (
            "  quantum_bytes: 512", "  quantum_bytes: 513",
            r"bus\.quantum_bytes: .*at most an eighth of the smallest .*buffer, 512 bytes",
        ),
        (
            "  refresh_cycles: 56", "  refresh_cycles: 781",
            r"memory\.refresh_cycles: .*must be below refresh_interval_cycles.*781",
        ),
    ],
)  # fmt: skip
def test_keys_that_do_not_go_together_are_named_at_one_of_them(tmp_path, old, new, said):
    text, line = edited(old, new)
    message = refusal(tmp_path, text)
    assert re.search(f"line {line}: {said}", message)
    assert message.count("\n") == 1
    assert "{" not in message, "the whole file is not shown"


@pytest.mark.parametrize("quantum", [16, 512])
def test_a_quantum_at_either_bound_is_taken(tmp_path, quantum):
    text, _ = edited("quantum_bytes: 512", f"quantum_bytes: {quantum}")
    (tmp_path / "machine.yaml").write_text(text)
    assert load_machine(tmp_path / "machine.yaml").config.bus.quantum_bytes == quantum


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "  clusters: 11",
            "  clusters: 22",
            r"fabric\.clusters: .*64 columns.* of 3 allow 1 to 21",
        ),
        ("  clusters: 11", "  clusters: 0", r"fabric\.clusters: .*greater than 0"),
        ("  rows: 16", "  rows: -16", r"fabric\.rows: .*greater than 0 \(found -16\)"),
        ("  scheme: tmr", "  scheme: none", r"fabric\.scheme: should be 'tmr' or 'dmr_retry'"),
        ("  columns: 64", "  columns: 3", r"fabric\.columns: .*at least 4"),
        ("fabric:", "fabric: 7\nunused:", r"fabric: should be"),
    ],
)
def test_a_mistake_in_a_fabric_is_named_with_its_line(tmp_path, old, new, said):
    text, line = edited(old, new, FUSED)
    message = refusal(tmp_path, text)
    assert re.search(f"line {line}: {said}", message)
    assert "{" not in message, "the whole file is not shown"


def test_mistakes_in_a_fabric_are_named_with_all_others(tmp_path):
    text = edited("  rows: 16", "  rows: -16", FUSED)[0].replace(
        "clock_mhz: 500", "clock_mhz: fast"
    )
    message = refusal(tmp_path, text)
    assert "fabric.rows: " in message
    assert "clock_mhz: " in message
    assert message.count("\n") == 2


def test_an_array_beside_a_fabric_is_refused(tmp_path):
    array = SMALL.read_text().partition("  array:\n")[2].partition("  buffers:")[0]
    text, line = edited("protected:\n", f"protected:\n  array:\n{array}", FUSED)
    message = refusal(tmp_path, text)
    assert re.search(rf"line {line + 1}: protected\.array: .*fabric exclude each other", message)
    assert message.count("\n") == 1
    assert "{" not in message, "the whole file is not shown"


def test_a_machine_needs_arrays_or_a_fabric(tmp_path):
    text = FUSED.read_text()
    start, end = text.index("fabric:"), text.index("protected:")
    message = refusal(tmp_path, text[:start] + text[end:])
    for domain in ("protected", "unprotected"):
        assert f"{domain}.array: this key is missing" in message


def test_a_clock_that_is_faster_than_a_buffers_bank_is_refused(tmp_path):
    message = refusal(tmp_path, edited("clock_mhz: 200", "clock_mhz: 847")[0])
    assert "clock_mhz is 847" in message
    assert "cycles in 1.182 ns: at most 846 MHz" in message, "72-bit words are the slowest"
    (tmp_path / "machine.yaml").write_text(edited("clock_mhz: 200", "clock_mhz: 846")[0])
    assert load_machine(tmp_path / "machine.yaml").config.clock_mhz == 846


def test_the_command_ends_with_status_2_and_says_what_is_wrong(tmp_path):
    path = tmp_path / "machine.yaml"
    path.write_text(edited("quantum_bytes: 512", "quantum_bytes: 8")[0])
    command = [sys.executable, "-c", "from nce_sim.cli.main import main; main()", "simulate"]
    ended = subprocess.run(
        [*command, "allcnn-fashion", "--machine", str(path), "--method", "random"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert ended.returncode == 2
    assert "bus.quantum_bytes" in ended.stderr
    assert str(path) in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_missing_key_is_named_with_the_block_that_lacks_it(tmp_path):
    text, line = edited("  quantum_bytes: 512\n", "")
    message = refusal(tmp_path, text)
    assert f"line {line - 1}: bus.quantum_bytes: this key is missing" in message


def test_all_mistakes_are_named_at_once(tmp_path):
    text = edited("clock_mhz: 200", "clock_mhz: fast\ncolour: red")[0]
    text = text.replace("  burst_bytes: 32\n", "").replace("columns: 4", "columns: -4", 1)
    message = refusal(tmp_path, text)
    lines = text.splitlines()
    for said, shown in [
        ("clock_mhz: ", "clock_mhz: fast"),
        ("colour: unknown key", "colour: red"),
        ("protected.array.columns: ", "    columns: -4"),
    ]:
        assert f"line {lines.index(shown) + 1}: {said}" in message
    assert "memory.burst_bytes: this key is missing" in message
    assert message.count("\n") == 4


def test_repeated_keys_are_all_refused_with_both_lines(tmp_path):
    text, line = edited("clock_mhz: 200", "clock_mhz: 200\nclock_mhz: 300")
    text = text.replace("    rows: 8", "    rows: 8\n    rows: 9", 1)
    rows = text.splitlines().index("    rows: 9") + 1
    message = refusal(tmp_path, text)
    assert f"line {line + 1}: key 'clock_mhz' stands already in line {line}" in message
    assert f"line {rows}: key 'rows' stands already in line {rows - 1}" in message


def test_equal_keys_in_different_blocks_are_no_repetition():
    assert load_machine("nce-28nm").config.protected.array.rows == 16


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment\n",
        "- a\n- list\n",
        "just words\n",
        "a: [1, 2\n",
        "a: b: c\n",
        "a: 1\n---\nb: 2\n",
        "a: \x07\n",
        "? [1, 2]\n: a key that is a list\n",
        "? {a: 1}\n: a key that is a mapping\n",
        "1: a key that is a number\n",
        "clock_mhz: 2020-13-45\n",
        "clock_mhz: !!int many\n",
        "clock_mhz: !!python/object:os.system x\n",
        "a: &a [*a]\n",
        "a: *nowhere\n",
    ],
    ids=repr,
)
def test_what_is_no_mapping_or_no_yaml_is_refused_with_a_message(tmp_path, text):
    refusal(tmp_path, text)


@given(text=st.text(alphabet="ab:-[]{}&*!?|>'\"%@`#,. \n\t0123\x00\u2028", max_size=30))
def test_no_text_makes_the_loader_fail_otherwise(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError):
        load_yaml(path, MachineConfig)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "machine.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot read"):
        load_machine(path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*nothing\.yaml"):
        load_machine(tmp_path / "nothing.yaml")


def test_merge_keys_and_numbers_with_exponents_are_read_as_their_authors_mean_them(tmp_path):
    content = yaml.safe_dump({**SMALL_MACHINE, "unprotected": None, "clock_mhz": None})
    content = content.replace("clock_mhz: null", "clock_mhz: 1e2")
    content = content.replace("protected:\n", "protected: &domain\n", 1)
    content = content.replace("unprotected: null", "unprotected:\n  <<: *domain\n  vector_lanes: 9")
    path = tmp_path / "machine.yaml"
    path.write_text(content)
    config = load_machine(path).config
    assert config.clock_mhz == 100
    assert config.unprotected.vector_lanes == 9
    assert config.unprotected.array == config.protected.array


def test_an_unknown_machine_is_refused_with_the_known_ones():
    with pytest.raises(
        InputError,
        match=r"unknown machine 'nce-3nm'.*nce-28nm, nce-fused, nce-int8, nce-near-threshold",
    ):
        load_machine("nce-3nm")


def test_an_unknown_technology_is_refused_with_the_known_ones(tmp_path):
    path = tmp_path / "machine.yaml"
    path.write_text(edited("technology: 28nm", "technology: 3nm")[0])
    with pytest.raises(InputError, match=r"unknown technology '3nm'.*28nm"):
        load_machine(path)


def test_a_technology_without_the_machines_number_format_is_refused(tmp_path):
    table = yaml.safe_load((bundled("hw_configs") / "technology" / "28nm.yaml").read_text())
    del table["mac"]["fp16"]
    (tmp_path / "table.yaml").write_text(yaml.safe_dump(table))
    path = tmp_path / "machine.yaml"
    path.write_text(edited("technology: 28nm", "technology: table.yaml")[0])
    with pytest.raises(InputError, match=r"fp16.*int8"):
        load_machine(path)


@pytest.mark.parametrize("scheme", ["parity", "hardened"])
def test_a_technology_without_figures_of_a_scheme_is_refused_where_it_is_used(tmp_path, scheme):
    table = yaml.safe_load((bundled("hw_configs") / "technology" / "28nm.yaml").read_text())
    del table["lane_overheads"][scheme]
    (tmp_path / "table.yaml").write_text(yaml.safe_dump(table))
    text = edited("technology: 28nm", "technology: table.yaml")[0]
    path = tmp_path / "machine.yaml"
    path.write_text(text)
    assert load_machine(path).config.protected.array.scheme != scheme
    path.write_text(text.replace("scheme: temporal_tmr", f"scheme: {scheme}"))
    with pytest.raises(InputError, match=rf"protected\.array\.scheme {scheme} .*lane_overheads"):
        load_machine(path)


def test_residue_is_refused_with_floats_at_the_line_of_the_scheme(tmp_path):
    text, line = edited("scheme: temporal_tmr", "scheme: residue")
    message = refusal(tmp_path, text)
    assert f"line {line}: protected.array.scheme: is residue" in message
    assert "number_format is fp16: take int8, or another scheme" in message
    path = tmp_path / "int8.yaml"
    path.write_text(text.replace("number_format: fp16", "number_format: int8"))
    assert load_machine(path).config.protected.array.scheme == "residue"


@pytest.mark.parametrize("rotation", ["none", "layers", "inferences", "repeats"])
def test_rotation_checks_and_clipping_are_read_and_left_out(tmp_path, rotation):
    plain = load_machine(SMALL).config
    assert plain.controller.rotation == "none"
    assert not plain.controller.checks_outputs
    assert not plain.protected.array.clip
    more = f"controller:\n  rotation: {rotation}\n  checks_outputs: true\n"
    text = edited("controller:\n", more)[0].replace(
        "scheme: temporal_tmr", "scheme: temporal_tmr\n    clip: true"
    )
    (tmp_path / "machine.yaml").write_text(text)
    found = load_machine(tmp_path / "machine.yaml").config
    assert found.controller.rotation == rotation
    assert found.controller.checks_outputs
    assert (found.protected.array.clip, found.unprotected.array.clip) == (True, False)


def test_an_unknown_rotation_is_refused_with_the_known_ones(tmp_path):
    text, line = edited("controller:\n", "controller:\n  rotation: always\n")
    message = refusal(tmp_path, text)
    assert f"line {line + 1}: controller.rotation: " in message
    assert "'layers', 'inferences'" in message


@pytest.mark.parametrize(
    ("value", "low", "high"), [(1, 2, 3), (4, 2, 3), (2, 3, 1), (-1, -2, 0), (float("nan"), 0, 1)]
)
def test_a_figure_outside_its_range_is_refused(value, low, high):
    with pytest.raises(ValueError, match=r"low|greater|finite"):
        Figure(value=value, low=low, high=high, source="a test")


def test_a_figure_may_lie_at_an_end_of_its_range():
    assert Figure(value=2, low=2, high=2, source="a test").assumption is False


def test_a_figure_without_a_source_is_refused():
    with pytest.raises(ValueError, match="source"):
        Figure(value=2, low=2, high=2, source="")


def test_a_figure_in_a_file_is_refused_with_the_line_of_its_name(tmp_path):
    text = (bundled("hw_configs") / "technology" / "28nm.yaml").read_text()
    shown = "wiring_factor: {value: 1.2, low: 1.1"
    path = tmp_path / "table.yaml"
    path.write_text(text.replace(shown, "wiring_factor: {value: 1.2, low: 1.3"))
    line = text[: text.index(shown)].count("\n") + 1
    with pytest.raises(InputError, match=f"line {line}: wiring_factor: low <= value <= high"):
        load_yaml(path, Technology)


def test_machines_are_frozen_and_equal_by_content():
    first, second = (MachineConfig.model_validate(machine_dict()) for _ in range(2))
    assert first == second
    with pytest.raises(ValueError, match="frozen"):
        first.clock_mhz = 1


def test_the_ppe_ratio_is_the_share_of_the_lanes():
    content = machine_dict(protected__array__rows=2, unprotected__array__rows=6)
    assert MachineConfig.model_validate(content).ppe_ratio == 0.25


def test_the_arrays_of_a_fabric_are_those_that_are_fused_at_the_start():
    config = MachineConfig.model_validate(fused_dict(fabric__columns=10, fabric__clusters=2))
    assert (config.protected.array.columns, config.unprotected.array.columns) == (2, 4)
    assert (config.protected.array.scheme, config.unprotected.array.scheme) == ("tmr", "none")
    assert config.arrays == config.fabric.arrays(2)
    assert config.ppe_ratio == pytest.approx(1 / 3)


NEAR = bundled("hw_configs") / "nce-near-threshold.yaml"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("supply_v: 0.60", "supply_v: 0.40", "unprotected.supply_v is 0.4: .* allow 0.5 to 0.9 V"),
        ("supply_v: 0.60", "supply_v: 1.10", "unprotected.supply_v is 1.1: .* allow 0.5 to 0.9 V"),
        ("supply_v: 0.60", "supply_v: 0.50", "clock_mhz is 400.* at unprotected.supply_v 0.5 V"),
        ("voltage: 28nm-near-threshold\n", "", "unprotected.supply_v is given: name the table"),
        ("technology: 28nm", "technology: 65nm", "cycles in .* ns: at most .* MHz"),
        ("voltage: 28nm-near-threshold", "voltage: 28nm-fpga-bram", "1 V as nominal"),
        ("clock_mhz: 400", "clock_mhz: 400\ntemperature_k: 500", "temperature_k is 500: .* K"),
        ("kind: lpddr4", "kind: hbm9", "memory.kind hbm9 has no figures .* lpddr4"),
    ],
)
def test_supplies_that_the_tables_do_not_allow_are_refused(tmp_path, old, new, message):
    text = NEAR.read_text()
    assert text.count(old) >= 1
    path = tmp_path / "near.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        load_machine(path)


def test_protected_lanes_must_meet_the_clock_at_their_supply(tmp_path):
    text = NEAR.read_text().replace("clock_mhz: 400", "clock_mhz: 505")
    wanted = "  vector_lanes: 16\n\nunprotected:"
    assert wanted in text
    path = tmp_path / "near.yaml"
    path.write_text(text.replace(wanted, "  vector_lanes: 16\n  supply_v: 0.59\n\nunprotected:"))
    with pytest.raises(InputError, match=r"at most|protected lanes close at"):
        load_machine(path)


def test_another_technology_takes_the_place_of_the_files_own():
    assert load_machine("nce-small", technology="65nm").technology.name == "65nm"
    with pytest.raises(InputError, match="unknown technology '3nm'"):
        load_machine("nce-28nm", technology="3nm")


def test_a_fabric_hands_its_clipping_and_gating_to_both_arrays():
    for changes in ({}, {"clip": True}, {"power_gating": True}):
        content = fused_dict(**{f"fabric__{name}": value for name, value in changes.items()})
        for array in MachineConfig.model_validate(content).arrays.values():
            assert array.clip == changes.get("clip", False)
            assert array.power_gating == changes.get("power_gating", False)

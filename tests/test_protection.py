"""Schemes as records: what they cover against measured injection, and schemes of a user's own."""

import json
import re
from itertools import combinations
from math import comb
from pathlib import Path

import numpy as np
import pytest
import yaml
from hardware import machine
from scipy.stats import binomtest
from small_networks import all_convolutional, images, labels
from test_voting import NEURON, struck
from typer.testing import CliRunner

import nce_sim as nce
from nce_sim.accuracy.inject import inject
from nce_sim.cli.main import app
from nce_sim.config.bundle import bundled
from nce_sim.config.loader import load_yaml
from nce_sim.config.machine import load_machine
from nce_sim.config.machine_schema import MachineConfig
from nce_sim.errors import InputError
from nce_sim.faults.effects import BitFlip, StuckAt
from nce_sim.faults.hits import ACCUMULATOR, INPUT, RESULT, Hits
from nce_sim.faults.lanes import LayerLanes
from nce_sim.faults.processes import Elements, Fault, Permanent, Single
from nce_sim.faults.sites import Site
from nce_sim.faults.voting import Struck, vote
from nce_sim.protection.coverage import FAULT_CLASSES, coverage, parts_of
from nce_sim.protection.in_words import in_words
from nce_sim.protection.schemes import ARRAY_SCHEMES, MEMORY_SCHEMES
from nce_sim.protection.words import DATA_BITS, decode, syndrome_counts
from nce_sim.workload.execute import prepare

P_VALUE = 1e-6
"""A correct program fails a binomial test once in a million seeds; the seeds are fixed."""

PAGE = Path(__file__).resolve().parent.parent / "docs" / "protection.md"
RESIDUE, PARITY, TMR = (ARRAY_SCHEMES[name] for name in ("residue", "parity", "tmr"))
SECDED = MEMORY_SCHEMES["secded"]


@pytest.fixture(scope="module")
def network():
    return nce.Workload.from_module(all_convolutional(), images(1))


@pytest.fixture(scope="module")
def calibration(network):
    return nce.calibrate(network, images(8))


@pytest.fixture(scope="module")
def lanes(network, calibration):
    executable = prepare(network, "int8", calibration=calibration)
    inputs = executable.images(images(3)).float().numpy()
    return LayerLanes(executable, network.layers[0], inputs)


def is_detected(lanes, scheme, *rows):
    return len(vote(lanes, scheme, struck(*rows), Struck.none()).repeated) == 1


def agrees(successes, trials, share):
    return binomtest(successes, trials, share).pvalue > P_VALUE


# What a code catches, against its coverage.


@pytest.mark.parametrize("scheme", [RESIDUE, PARITY])
def test_every_single_flipped_bit_of_a_sum_is_detected(lanes, scheme):
    assert coverage(scheme, "transient", "accumulator", 1).residual == 1
    for bit in range(32):
        assert is_detected(lanes, scheme, (ACCUMULATOR, 0, 18, 1 << bit))


@pytest.mark.parametrize("scheme", [RESIDUE, PARITY])
@pytest.mark.parametrize("bits", [2, 3, None])
def test_more_flipped_bits_are_detected_as_often_as_the_coverage_says(lanes, scheme, bits):
    """Random strikes at random steps: each an independent trial."""
    random, trials = np.random.default_rng(5), 600
    found = 0
    for _ in range(trials):
        flips = random.choice(32, bits, replace=False) if bits else []
        mask = sum(1 << int(bit) for bit in flips) or int(random.integers(1, 2**32))
        found += is_detected(lanes, scheme, (ACCUMULATOR, 0, int(random.integers(19)), mask))
    assert agrees(found, trials, coverage(scheme, "transient", "accumulator", bits).residual)


def test_codes_of_sums_say_nothing_of_operands_and_parity_nothing_of_arithmetic(lanes):
    assert coverage(RESIDUE, "transient", "operands").residual == 0
    assert coverage(PARITY, "transient", "arithmetic").residual == 0
    for bit in range(8):
        assert not is_detected(lanes, RESIDUE, (INPUT, 0, 4, 1 << bit))
        assert is_detected(lanes, PARITY, (INPUT, 0, 4, 1 << bit))
    for bit in range(32):
        assert not is_detected(lanes, PARITY, (RESULT, 0, 0, 1 << bit))


@pytest.mark.parametrize("bits", [1, 2])
def test_secded_corrects_all_single_and_detects_all_double_errors(bits):
    found = coverage(SECDED, "transient", "word", bits)
    assert (found.residual, found.latent) == (1, bits - 1)
    for flipped in combinations(range(DATA_BITS), bits):
        verdict = decode(SECDED, flipped)
        assert verdict.detected if bits == 2 else not verdict.wrong


def test_triple_errors_are_miscorrected_as_often_as_the_code_says():
    verdicts = [decode(SECDED, flipped) for flipped in combinations(range(DATA_BITS), 3)]
    assert len(verdicts) == comb(DATA_BITS, 3) == sum(syndrome_counts(3))
    share = sum(verdict.detected for verdict in verdicts) / len(verdicts)
    assert coverage(SECDED, "permanent", "word", 3).residual == pytest.approx(share)
    assert f"{share:.1%}".replace("%", " %") in PAGE.read_text()
    assert {len(verdict.wrong) for verdict in verdicts if not verdict.detected} <= {2, 3, 4}
    assert any(len(verdict.wrong) == 4 for verdict in verdicts)


def test_parity_of_a_word_turns_with_odd_numbers():
    parity = MEMORY_SCHEMES["parity"]
    shares = [coverage(parity, "transient", "word", bits).residual for bits in (1, 2, 3, None)]
    assert shares == [1, 0, 1, 0.5]


# What redundancy covers, against injection.


def run_of(network, scheme, domain="protected", split=0.0, **changes):
    """The whole network on one domain's int8 lanes, which are protected so."""
    roomy = {
        f"{each}__buffers__{name}_bytes": 4096
        for each in ("protected", "unprotected") for name in ("input", "weight", "output")
    }  # fmt: skip
    plain = machine(number_format="int8", **roomy, **changes)
    masks = nce.rank(network, None, None, "random").split(split)
    return nce.simulate(network, plain.with_scheme(domain, scheme), masks)


def inject_into(network, run, calibration, fault, count=10, **options):
    return inject(
        network, images(count), labels(count), run.schedule, fault, calibration=calibration,
        **options,
    )  # fmt: skip


SITES = {"accumulator": "accumulator", "operands": "input", "column": "column", "voter": "voter"}
STUCK = {"accumulator": 27, "operands": 6, "column": 6, "voter": 27}


@pytest.mark.parametrize(
    "name", ["none", "tmr", "dmr_retry", "temporal_dmr", "temporal_tmr", "parity", "abft"]
)
@pytest.mark.parametrize("fault_class", FAULT_CLASSES)
def test_coverage_of_one_or_none_is_what_injection_finds(network, calibration, name, fault_class):
    """A fault is controlled if no stored value is wrong, or the inference is a DUE."""
    scheme = ARRAY_SCHEMES[name]
    run = run_of(network, scheme)
    for part in {"accumulator", "operands", "column", "voter"} & set(parts_of(scheme)):
        site = Site.parse(f"protected.{SITES[part]}")
        count = 60 if part == "voter" else 2  # it votes in the last cycle of a wave alone
        fault = Fault(site, Single(count), BitFlip(bit=STUCK[part]))
        if fault_class == "permanent":
            stuck = StuckAt(value=1, bit=STUCK[part])
            fault = Fault(site, Permanent(Elements(places=(1,))), stuck)
        result = inject_into(network, run, calibration, fault, realisations=2)
        wrong = (result.inferences.changed > 0) & ~result.due
        assert (result.inferences.struck > 0).any()
        covered = coverage(scheme, fault_class, part)
        assert wrong.any() == (covered.residual == 0), (part, covered)
        heard = (result.inferences.repeated > 0) | result.due
        if part not in ("voter", "check"):
            assert heard.any() == (covered.latent > 0), (part, covered)


def test_a_majority_that_reports_is_heard(network, calibration):
    silent, reports = TMR, TMR.model_copy(update={"name": "tmr_reports", "reports": True})
    for part, share in (("accumulator", 1), ("column", 0), ("voter", 0)):
        assert coverage(silent, "permanent", part).latent == 0
        assert coverage(reports, "permanent", part).latent == share
    fault = Fault(Site.parse("protected.accumulator"), Single(1), BitFlip())
    results = [
        inject_into(network, run_of(network, scheme), calibration, fault)
        for scheme in (silent, reports)
    ]
    assert [result.error_rate for result in results] == [0, 0]
    assert results[0].rates["noticed"].value == 0
    reached = results[1].inferences.struck > 0
    assert (results[1].inferences.noticed == reached).all()
    assert reached.any()


def test_runs_on_other_lanes_cover_permanent_faults_of_lanes_but_not_of_columns():
    for name in ("temporal_dmr", "temporal_tmr"):
        scheme = ARRAY_SCHEMES[name]
        for part, share in (("accumulator", 1), ("operands", 1), ("column", 0)):
            assert coverage(scheme, "permanent", part).residual == 0
            assert coverage(scheme, "permanent", part, lanes_change=True).residual == share


@pytest.mark.parametrize("scheme", [*ARRAY_SCHEMES.values(), *MEMORY_SCHEMES.values()])
def test_every_scheme_has_shares_with_reasons_and_words(scheme):
    for part in parts_of(scheme):
        for fault_class in FAULT_CLASSES:
            for bits in (1, 2, None):
                found = coverage(scheme, fault_class, part, bits)
                assert 0 <= found.latent <= found.residual <= 1
                assert found.residual_reason.endswith(".")
                assert found.latent_reason.endswith(".")
    assert all(vars(in_words(scheme)).values())
    assert f"`{scheme.name}`" in PAGE.read_text() or scheme.name in ("none", "ideal")


def test_a_part_that_a_scheme_lacks_is_refused():
    with pytest.raises(InputError, match=r"'none' has no part 'voter': it has arithmetic, acc"):
        coverage(ARRAY_SCHEMES["none"], "transient", "voter")
    with pytest.raises(InputError, match="has no part 'column': it has word"):
        coverage(SECDED, "transient", "column")


# Schemes of a user's own.


def small_with(content, tmp_path):
    """nce-small with other content, merged key by key, as a file."""
    merged = yaml.safe_load((bundled("hw_configs") / "nce-small.yaml").read_text())
    places = [(merged, content)]
    while places:
        old, new = places.pop()
        for key, value in new.items():
            if isinstance(value, dict) and isinstance(old.get(key), dict):
                places.append((old[key], value))
            else:
                old[key] = value
    path = tmp_path / "machine.yaml"
    path.write_text(yaml.safe_dump(merged, sort_keys=False))
    return path


def test_the_example_of_the_page_runs_as_written(network, tmp_path):
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    own = load_machine(small_with(yaml.safe_load(block), tmp_path))
    scheme = own.config.scheme_of("protected")
    assert (scheme.name, scheme.copies, scheme.detects) == ("checked_pair", 2, 0.5)
    assert scheme.energy_share.at("high") == 0.08
    run = nce.simulate(network, own, nce.rank(network, None, None, "random").split(0.5))
    done = run.counts.domains["protected"]
    assert done.lane_macs == 2 * done.useful_macs
    assert done.votes == done.neurons
    fault = Fault(Site.parse("protected.accumulator"), Single(1), BitFlip())
    result = inject(network, images(6), labels(6), run.schedule, fault)
    assert result.error_rate == 0
    assert result.rates["repeated"].value > 0


@pytest.mark.parametrize("domain", ["protected", "unprotected"])
@pytest.mark.parametrize("name", sorted({*ARRAY_SCHEMES} - {"ideal"}))
def test_a_scheme_equal_to_a_bundled_one_gives_equal_results(network, calibration, name, domain):
    own = ARRAY_SCHEMES[name].model_copy(update={"name": "mine"})
    runs = [run_of(network, each, domain, 0.5) for each in (ARRAY_SCHEMES[name], own)]
    assert runs[1].machine.config.scheme_of(domain) == own
    assert runs[0].timeline == runs[1].timeline
    assert runs[0].counts == runs[1].counts
    adds = [run.counts.domains[domain].checksum_adds for run in runs]
    assert adds[0] == adds[1]
    fault = Fault(Site.parse(f"{domain}.accumulator"), Single(3), BitFlip())
    found = [inject_into(network, run, calibration, fault) for run in runs]
    for field, values in vars(found[0].inferences).items():
        assert values.tobytes() == getattr(found[1].inferences, field).tobytes(), field
    assert found[0].waves.tobytes() == found[1].waves.tobytes()


def test_detection_has_its_rate_nests_and_needs_no_retries(network, calibration):
    """What is noticed without retries is a DUE; each struck inference is one trial."""
    fault = Fault(Site.parse("protected.accumulator"), Single(1), BitFlip(bit=30))
    found = {}
    for share in (0.0, 0.3, 0.7, 1.0):
        scheme = nce.ArrayScheme(name="noticing", detects=share)
        result = inject_into(network, run_of(network, scheme), calibration, fault, 12,
                             realisations=8)  # fmt: skip
        found[share] = result.due
        wrong = result.inferences.struck > 0
        assert not (result.due & ~wrong).any()
        if 0 < share < 1:
            assert agrees(int(result.due[wrong].sum()), int(wrong.sum()), share)
        assert result.rates["repeated"].value == 0
    assert not found[0.0].any()
    assert (found[1.0] == wrong).all()
    assert (found[0.3] <= found[0.7]).all()
    retrying = nce.ArrayScheme(name="noticing", detects=0.7, retries=True)
    result = inject_into(network, run_of(network, retrying), calibration, fault, 12,
                             realisations=8)  # fmt: skip
    assert not result.due.any()
    assert ((result.inferences.repeated > 0) == found[0.7]).all()


def test_a_comparison_without_retries_is_a_due(lanes):
    pair = nce.ArrayScheme(name="pair", copies=2, votes=True)
    found = vote(lanes, pair, struck((ACCUMULATOR, 1, 4, 1 << 20)), Struck.none())
    assert found.failed.tolist() == [1]
    assert not len(found.repeated)
    assert not found.changed.any()
    clean = lanes.sums(np.array([1]), np.array([NEURON]), Hits.none(), np.empty(0, np.int64))[0]
    assert found.sums.tolist() == clean.tolist()


OWN = {"name": "mine", "copies": 2, "votes": True}


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"name": "tmr"}, "name", "is tmr, the name of a bundled scheme"),
        ({"copies": 4}, "copies", r"copies x repeats is 4"),
        ({"votes": False}, "votes", r"is false with copies x repeats of 2"),
        ({"copies": 1}, "votes", r"is true with copies x repeats of 1"),
        ({"copies": 3, "retries": True}, "retries", "nothing in it detects"),
        ({"reports": True}, "reports", "nothing is corrected"),
        ({"check": "crc"}, "check", "'parity', 'residue' or 'checksum'"),
        ({"check": "checksum"}, "check", "one copy and one run"),
        ({"detects": 1.5}, "detects", "less than or equal to 1"),
        ({"colour": "red"}, "colour", "unknown key"),
    ],
)
def test_a_scheme_without_meaning_is_refused_at_its_line(tmp_path, changes, field, message):
    path = small_with({"schemes": [{**OWN, **changes}]}, tmp_path)
    text = path.read_text().splitlines()
    start = next(number for number, line in enumerate(text) if line.startswith("schemes:"))
    line = next((n for n, row in enumerate(text) if n > start and f"{field}:" in row), None)
    with pytest.raises(InputError, match=rf"line {line + 1}: schemes\.0\.{field}: .*{message}"):
        load_machine(path)


def test_the_command_prints_what_a_machine_adds_too(tmp_path):
    path = small_with({"schemes": [OWN]}, tmp_path)
    done = CliRunner().invoke(app, ["protection", "--machine", str(path), "--json"])
    assert done.exit_code == 0
    rows = json.loads(done.stdout)
    assert [row["name"] for row in rows["lanes"]] == [*ARRAY_SCHEMES, "mine"]
    assert [row["name"] for row in rows["memory words"]] == [*MEMORY_SCHEMES]
    assert rows["lanes"][-1]["detects"] == "sums that differ between two copies"
    table = CliRunner().invoke(app, ["protection", "--coverages"])
    assert "mine" not in table.stdout
    assert "Nothing votes on" in table.stdout


def test_check_none_is_no_check_and_names_are_taken_once(tmp_path):
    path = small_with({"schemes": [{**OWN, "check": "none"}]}, tmp_path)
    assert load_yaml(path, MachineConfig).schemes[0].check is None
    path = small_with({"schemes": [OWN, OWN]}, tmp_path)
    with pytest.raises(InputError, match=r"schemes\.1\.name: is mine, the name of one above"):
        load_machine(path)


def test_an_unknown_scheme_is_refused_with_its_line_and_the_known_names(tmp_path):
    content = {"schemes": [OWN], "protected": {"array": {"scheme": "magic"}}}
    path = small_with(content, tmp_path)
    rows = path.read_text().splitlines()
    line = next(number for number, row in enumerate(rows, 1) if "scheme: magic" in row)
    with pytest.raises(InputError) as refused:
        load_machine(path)
    message = str(refused.value)
    assert f"line {line}: protected.array.scheme: should be one of" in message
    assert all(f"'{name}'" in message for name in (*ARRAY_SCHEMES, "mine", "magic"))


def test_a_scheme_is_passed_as_an_object_and_leaves_nothing_behind():
    own, plain = nce.ArrayScheme(**OWN), machine()
    changed = plain.with_scheme("protected", own)
    assert changed.config.scheme_of("protected") == own
    assert plain.config.scheme_of("protected").name == "none"
    assert "mine" not in ARRAY_SCHEMES
    again = changed.with_scheme("protected", own.model_copy(update={"detects": 0.5}))
    assert [scheme.detects for scheme in again.config.schemes] == [0.5]
    with pytest.raises(InputError, match="unknown array 'left'"):
        plain.with_scheme("left", own)
    with pytest.raises(InputError, match="the name of a bundled scheme"):
        plain.with_scheme("protected", own.model_copy(update={"name": "tmr"}))
    with pytest.raises(InputError, match=r"number_format is fp16: take int8"):
        plain.with_scheme("protected", nce.ArrayScheme(name="mod3", check="residue"))
    with pytest.raises(InputError, match="has a fabric"):
        load_machine("nce-fused").with_scheme("protected", own)

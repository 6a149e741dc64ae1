"""Technology tables: complete, in the order physics gives, and scaled by rules as published."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from pydantic import BaseModel

from nce_sim.config.bundle import bundled
from nce_sim.config.scaling import (
    RULES,
    STILLMAKER_BAAS,
    Point,
    dennard_1974,
    scale_table,
    stillmaker_baas_2017,
)
from nce_sim.config.technology import (
    CellType,
    Figure,
    LaneScheme,
    NumberFormat,
    SramRow,
    Technology,
    load_technology,
)
from nce_sim.errors import InputError

FOLDER = bundled("hw_configs") / "technology"
FULL = ["28nm", "45nm", "65nm"]
SCALED = ["12nm", "16nm"]

SHORT = """\
name: short
description: a test
node_nm: 16
voltage_v: 0.8
temperature_k: 300
scaling:
  table: 28nm
  rule: stillmaker-baas-2017
  error: 0.4
"""


def table(name: str) -> Technology:
    return load_technology(name, FOLDER, FOLDER)


def load_text(tmp_path: Path, text: str) -> Technology:
    (tmp_path / "table.yaml").write_text(text)
    return load_technology("table.yaml", FOLDER, tmp_path)


def figures(part: Any, name: str = "") -> dict[str, Figure]:
    """Return every figure of a part by its path."""
    if isinstance(part, Figure):
        return {name: part}
    if isinstance(part, BaseModel):
        part = dict(part)
    if not isinstance(part, dict):
        return {}
    found: dict[str, Figure] = {}
    for key, inner in part.items():
        found |= figures(inner, f"{name}.{key}".strip("."))
    return found


# --- bundled tables ------------------------------------------------------------------------------


def test_the_bundled_tables_are_those_tested_here():
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == sorted(FULL + SCALED)


@pytest.mark.parametrize("name", FULL + SCALED)
def test_a_bundled_table_is_complete(name):
    technology = table(name)
    assert technology.name == name
    assert technology.node_nm == float(name.removesuffix("nm"))
    assert set(technology.mac) == set(get_args(NumberFormat))
    assert set(technology.lane_overheads) == set(get_args(LaneScheme))
    assert set(technology.sram.leakage_by_cell_type) == set(get_args(CellType))
    assert set(technology.memories) == {"lpddr4", "lpddr5", "ddr3", "ddr4"}
    rows = [(row.word_bits, row.capacity_kib) for row in technology.sram.rows]
    assert rows == [(bits, size) for bits in (64, 72, 128, 144) for size in (4, 8, 16, 32, 64)]


@pytest.mark.parametrize("name", FULL)
def test_an_estimate_is_marked_as_one(name):
    """A figure that says how it was made up, and not where it is published, is an assumption."""
    made_up = re.compile(r"gate count|synthesis x|between fp32|scaled up|as LPDDR4|no figure found")
    for path, figure in figures(table(name)).items():
        assert figure.assumption or not made_up.search(figure.source), path


@pytest.mark.parametrize("name", FULL + SCALED)
def test_a_law_of_leakage_covers_the_table_it_stands_in(name):
    technology = table(name)
    assert technology.leakage.lowest_k <= technology.temperature_k <= technology.leakage.highest_k
    cells = technology.sram.leakage_by_cell_type
    assert cells[technology.sram.cell_type].value == 1
    assert cells["lstp"].value < cells["lop"].value < cells["hp"].value


UNITS = re.compile(
    r"_(pj|pj_per_byte|pj_per_byte_mm|um2|mm2|mw|mw_per_mm2|ns|nm|kib|bits|k|v"
    r"|fit_per_mbit|fit_per_mm2|flip_flops_per_mm2)$"
)
WITHOUT_UNIT = re.compile(r"(^|_)(share|factor|efficiency|ratio)$")
RELATIVE = {"LaneOverhead.energy", "LaneOverhead.area", "SramFigures.leakage_by_cell_type"}
"""Shares by their class' docstring and ratios by theirs."""


def models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in models_in(inner)]


def numbers_of(model: type[BaseModel], seen: set[str]) -> list[str]:
    """Return `Class.field` for every number and figure of a schema."""
    if model.__name__ in seen or model is Figure:
        return []
    seen.add(model.__name__)
    found = []
    for name, field in model.model_fields.items():
        inner = models_in(field.annotation)
        if Figure in inner or (not inner and field.annotation in (int, float)):
            found.append(f"{model.__name__}.{name}")
        for other in inner:
            found += numbers_of(other, seen)
    return found


def test_the_unit_of_every_number_is_in_its_name():
    names = numbers_of(Technology, set())
    assert len(names) > 45
    for name in set(names) - RELATIVE:
        assert UNITS.search(name) or WITHOUT_UNIT.search(name.split(".")[1]), name


# --- physics -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field",
    [f"mac.{number}.{what}" for number in get_args(NumberFormat)
     for what in ("energy_pj", "area_um2")]
    + ["register_32bit_access_pj", "register_32bit_area_um2", "voter_32bit_pj",
       "voter_32bit_area_um2", "comparator_pj", "comparator_area_um2", "parity.area_um2",
       "secded.encode_pj", "secded.decode_pj", "secded.area_um2", "vector_element_pj",
       "vector_lane_area_um2", "controller_tile_pj", "controller_area_mm2",
       "level_shifter_pj_per_byte", "leakage.wake_pj"],
)  # fmt: skip
def test_energy_and_area_fall_with_the_node(field):
    values = [figures(table(name))[field].value for name in (*SCALED, *FULL)]
    assert all(small < large for small, large in pairwise(values)), values


@pytest.mark.parametrize("field", ["read_pj", "write_pj", "area_mm2", "cycle_ns"])
def test_sram_of_the_published_rows_falls_with_the_node(field):
    for rows in zip(*(table(name).sram.rows for name in FULL), strict=True):
        small, middle, large = (getattr(row, field) for row in rows)
        assert small < middle < large, rows[0]


def test_wider_numbers_cost_more_and_more_check_bits_cost_more():
    for name in FULL:
        mac = table(name).mac
        for what in ("energy_pj", "area_um2"):
            values = [getattr(mac[number], what).value for number in get_args(NumberFormat)]
            ordered = [values[0], values[2], values[1], values[3]]  # bf16 lies below fp16
            assert ordered == sorted(ordered)
        rows = {(row.word_bits, row.capacity_kib): row for row in table(name).sram.rows}
        for size in (8, 32, 64):
            for data, checked in ((64, 72), (128, 144)):
                narrow, wide = rows[data, size], rows[checked, size]
                assert 1.1 < wide.read_pj / narrow.read_pj < 1.25
                assert 1.1 < wide.area_mm2 / narrow.area_mm2 < 1.25


@pytest.mark.parametrize("name", FULL)
@pytest.mark.parametrize(
    ("field", "factor"),
    [
        ("read_pj", 1.2),
        ("write_pj", 1.2),
        ("leakage_mw", 1.1),
        ("area_mm2", 1.1),
        ("cycle_ns", 1.15),
    ],
)
def test_a_power_law_of_each_width_follows_its_rows(name, field, factor):
    """Reads are the roughest: CACTI divides a bank anew at some sizes."""
    rows = table(name).sram.rows
    for bits in get_args(SramRow.model_fields["word_bits"].annotation):
        own = [row for row in rows if row.word_bits == bits]
        sizes = np.log([row.capacity_kib for row in own])
        values = np.log([getattr(row, field) for row in own])
        law = np.polyval(np.polyfit(sizes, values, 1), sizes)
        assert np.exp(np.abs(law - values).max()) < factor


def test_permanent_rates_follow_from_iec_tr_62380():
    """Worked out by hand: FIT a transistor x transistors x exp(-0.35 x 10) x pi_T(300 K)."""
    pi_t = np.exp(0.30 / 8.617333e-5 * (1 / 328 - 1 / 300))
    mature = np.exp(-0.35 * 10) * pi_t
    density = {"28nm": 4 / 0.7, "45nm": 4 / 1.0, "65nm": 4 / 1.44}  # a NAND2 in um2
    for name in FULL:
        rates = table(name).fault_rates
        assert rates.sram_permanent_fit_per_mbit.value == pytest.approx(
            1.7e-7 * 6 * 2**20 * mature, rel=0.02
        )
        assert rates.logic_permanent_fit_per_mm2.value == pytest.approx(
            1.2e-5 * density[name] * 1e6 * mature, rel=0.02
        )


# --- rules of scaling ----------------------------------------------------------------------------

CACTI_HP = {
    Point(65, 1.1): (0.0483698, 0.383250, 35.7694),
    Point(45, 1.0): (0.0289844, 0.183662, 31.0836),
    Point(32, 0.9): (0.0120341, 0.105779, 12.3243),
    Point(22, 0.8): (0.0046885, 0.056089, 5.4693),
}
"""Read nJ, mm2 and leakage mW of 64 KiB of high-performance cells at 300 K (CACTI 7)."""


def test_the_worked_example_of_stillmaker_and_baas():
    """From 65 nm at 1.3 V to 32 nm at 0.9 V, as in the correction of their section 4.2.1."""
    factors = stillmaker_baas_2017(Point(65, 1.3), Point(32, 0.9))
    assert factors.energy == pytest.approx(0.4571 / 2.604, rel=1e-3)
    assert factors.area == pytest.approx(0.31, abs=0.005)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_follows_sram_within_its_stated_error(rule):
    for start, end in pairwise(CACTI_HP):
        factors = RULES[rule].factors(start, end)
        for place, factor in enumerate((factors.energy, factors.area)):
            measured = CACTI_HP[end][place] / CACTI_HP[start][place]
            assert abs(np.log(factor / measured)) < np.log(1 + RULES[rule].error)
        leakage = CACTI_HP[end][2] / CACTI_HP[start][2]
        assert abs(np.log(factors.leakage / leakage)) < np.log(1.75)


def test_dennards_rule_by_hand():
    factors = dennard_1974(Point(40, 1.0), Point(20, 0.8))
    assert factors.energy == pytest.approx(0.5 * 0.64)
    assert factors.area == pytest.approx(0.25)
    assert (factors.delay, factors.leakage) == pytest.approx((0.5, 0.4))


def test_within_its_voltages_the_fit_is_physical():
    """Energy rises with the voltage; the delay falls, but for a tenth that the fits overshoot."""
    for node, fit in STILLMAKER_BAAS.items():
        voltages = np.linspace(fit.lowest_v, fit.highest_v, 50)
        energy, delay = np.polyval(fit.energy, voltages), np.polyval(fit.delay, voltages)
        assert (np.diff(energy) > 0).all(), node
        assert energy.min() > 0
        assert delay.min() > 0
        assert delay[-1] <= 1.12 * delay.min(), node


def test_a_node_between_two_lies_between_them():
    start = Point(45, 0.9)
    larger, between, smaller = (
        stillmaker_baas_2017(start, Point(node, 0.8)) for node in (14, 12, 10)
    )
    assert larger.energy > between.energy > smaller.energy
    assert larger.area > between.area > smaller.area


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", FULL)
def test_scaling_to_the_same_point_changes_nothing(rule, name):
    source = table(name)
    point = Point(source.node_nm, source.voltage_v)
    again = Technology.model_validate(scale_table(source.model_dump(), point, point, rule, 0.4))
    before, after = figures(source), figures(again)
    assert set(before) == set(after)
    for path, figure in before.items():
        for end in ("low", "value", "high"):
            assert getattr(after[path], end) == pytest.approx(getattr(figure, end)), path
    for row, same in zip(source.sram.rows, again.sram.rows, strict=True):
        assert dict(same) == pytest.approx(dict(row))


def test_each_unit_follows_its_own_factor():
    source, scaled = table("28nm"), table("16nm")
    factors = stillmaker_baas_2017(Point(28, 0.9), Point(16, 0.8))
    expected = {
        "mac.fp16.energy_pj": factors.energy,
        "level_shifter_pj_per_byte": factors.energy,
        "leakage.wake_pj": factors.energy,
        "secded.area_um2": factors.area,
        "controller_area_mm2": factors.area,
        "bus_pj_per_byte_mm": (0.8 / 0.9) ** 2,
        "logic_leakage_mw_per_mm2": factors.leakage / factors.area,
        "fault_rates.logic_flip_flops_per_mm2": 1 / factors.area,
        "fault_rates.sram_upset_fit_per_mbit": 1,
        "sram.energy_factor": 1,
        "sram.leakage_by_cell_type.hp": 1,
        "lane_overheads.parity.energy": 1,
        "leakage.doubling_k": 1,
        "regulator_efficiency": 1,
    }
    before, after = figures(source), figures(scaled)
    for path, factor in expected.items():
        assert after[path].value == pytest.approx(factor * before[path].value), path
    for row, small in zip(source.sram.rows, scaled.sram.rows, strict=True):
        assert small.write_pj == pytest.approx(factors.energy * row.write_pj)
        assert small.area_mm2 == pytest.approx(factors.area * row.area_mm2)
        assert small.cycle_ns == pytest.approx(factors.delay * row.cycle_ns)
        assert small.leakage_mw == pytest.approx(factors.leakage * row.leakage_mw)
        assert small.capacity_kib == row.capacity_kib


def test_a_scaled_range_is_wider_by_the_error_and_says_where_it_comes_from():
    before, after = figures(table("28nm")), figures(table("16nm"))
    spread = {path: figure.high / figure.low for path, figure in before.items()}
    for path in ("mac.int8.energy_pj", "secded.area_um2", "sram.energy_factor"):
        wider = after[path].high / after[path].low
        assert wider == pytest.approx(1.4**2 * spread[path]), path
        assert after[path].assumption
        assert "28nm" in after[path].source
        assert "stillmaker-baas-2017" in after[path].source
        assert before[path].source in after[path].source
    for path in ("logic_leakage_mw_per_mm2", "sram.leakage_factor"):
        wider = after[path].high / after[path].low
        assert wider == pytest.approx((3 * 1.4) ** 2 * spread[path]), path


def test_an_external_memory_does_not_scale():
    assert table("16nm").memories == table("28nm").memories


def test_a_scaled_table_keeps_its_own_name_and_point(tmp_path):
    made = load_text(tmp_path, SHORT)
    assert (made.name, made.description) == ("short", "a test")
    assert (made.node_nm, made.voltage_v, made.temperature_k) == (16, 0.8, 300)
    assert made.mac == table("16nm").mac


def test_a_table_beside_the_file_can_be_scaled(tmp_path):
    (tmp_path / "own.yaml").write_text((FOLDER / "28nm.yaml").read_text())
    assert load_text(tmp_path, SHORT.replace("28nm", "own.yaml")).mac == table("16nm").mac


# --- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("stillmaker-baas-2017", "moore", r"line 8: scaling\.rule: unknown rule 'moore': known are "
         r"stillmaker-baas-2017, dennard-1974"),
        ("node_nm: 16", "node_nm: 5", r"line 3: node_nm: the rule holds from 7 to 180 nm .*5\)"),
        ("node_nm: 16", "node_nm: 0", r"line 3: node_nm: should be greater than 0"),
        ("voltage_v: 0.8", "voltage_v: 1.2",
         r"line 4: voltage_v: at 16 nm the rule holds from 0\.5 to 0\.95 V \(found 1\.2\)"),
        ("error: 0.4", "error: 0.1", r"line 9: scaling\.error: at least 0\.4"),
        ("error: 0.4", "erorr: 0.4", r"line 9: scaling\.erorr: unknown key"),
        ("table: 28nm", "table: 29nm", r"scaling\.table: unknown technology '29nm': bundled are"),
        ("table: 28nm", "table: 16nm", r"scaling\.table: '16nm' is scaled itself"),
        ("temperature_k: 300", "temperature_k: 350", r"temperature_k: no rule scales it.*300.*350"),
    ],
)  # fmt: skip
def test_a_scaled_table_that_cannot_be_made_is_refused(tmp_path, old, new, message):
    assert old in SHORT
    with pytest.raises(InputError, match=message) as caught:
        load_text(tmp_path, SHORT.replace(old, new))
    assert "table.yaml" in str(caught.value)


def test_a_source_outside_the_rule_is_refused(tmp_path):
    text = (FOLDER / "28nm.yaml").read_text().replace("voltage_v: 0.9", "voltage_v: 1.3")
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(InputError, match=r"scaling\.table: voltage_v of .*own\.yaml: at 28 nm"):
        load_text(tmp_path, SHORT.replace("28nm", "own.yaml"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*none\.yaml"):
        load_technology("none.yaml", FOLDER, tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("mac:\n", "mca:\n", r"mca: unknown key"),
        ("mac:\n", "mca:\n", r"line 10: mac: this key is missing"),
        ("{value: 1.244, low: 1.0", "{value: 1.244, low: -1.0",
         r"mac\.fp16\.energy_pj\.low: should be greater than or equal to 0 \(found -1\.0\)"),
        ("read_pj: 2.06314", "read_pj: -2.06314",
         r"sram\.rows\.0\.read_pj: should be greater than 0 \(found -2\.06314\)"),
        ("word_bits: 144", "word_bits: 80", r"sram\.rows\.15\.word_bits: should be 64, 72, 128 or"),
        ("cell_type: lstp", "cell_type: sram", r"sram\.cell_type: should be 'lstp', 'lop' or 'hp'"),
        ("ratio: 1, factor: 1}", "ratio: 1, factor: 0.9}", r"leakage\.by_voltage\.0: the first"),
        ("ratio: 0.8, factor: 0.53}", "ratio: 0.8, factor: 0.73}",
         r"leakage\.by_voltage\.2: ratios must fall"),
        ("wiring_factor: {value: 1.2,", "wiring_factor: {", r"wiring_factor\.value: this key is"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_table_is_named_with_its_line(tmp_path, old, new, message):
    text = (FOLDER / "28nm.yaml").read_text()
    assert old in text
    with pytest.raises(InputError, match=message) as caught:
        load_text(tmp_path, text.replace(old, new))
    assert re.search(r"line \d+: ", str(caught.value))


def test_a_width_of_one_size_is_refused(tmp_path):
    lines = (FOLDER / "28nm.yaml").read_text().splitlines(keepends=True)
    kept = [line for line in lines if "word_bits: 72" not in line or "capacity_kib: 4," in line]
    with pytest.raises(InputError, match=r"sram\.rows: banks of at least 2 sizes with 72-bit"):
        load_text(tmp_path, "".join(kept))

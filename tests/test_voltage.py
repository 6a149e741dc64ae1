"""Supply voltage: what fails at it, held against published points and figures by hand."""

from itertools import pairwise
from math import inf, nan
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from nce_sim.config.bundle import bundled
from nce_sim.config.voltage import VoltageTable, list_voltages, load_voltage
from nce_sim.config.voltage_curves import (
    bit_failure_probability,
    delay_ratio,
    extremes,
    interpolate,
    late_probability,
)
from nce_sim.errors import InputError
from nce_sim.report.style import png_bytes
from nce_sim.report.voltage_figure import figure_voltage

FOLDER = bundled("hw_configs") / "voltage"
NEAR, BRAM = "28nm-near-threshold", "28nm-fpga-bram"

MEASURED_14NM = {
    0.958: 1.907e-6, 0.917: 6.866e-5, 0.875: 1.29e-3,
    0.833: 1.115e-2, 0.792: 5.573e-2, 0.750: 2.056e-1,
}  # fmt: skip
"""V/Vmin -> p, Chandramoorthy et al. (HPCA 2019), as published with Stutz et al. (MLSys 2021)."""

VC707 = dict(
    zip(
        (0.54, 0.55, 0.56, 0.57, 0.58, 0.59, 0.60),
        (7.0e-4, 2.2e-4, 8.1e-5, 2.3e-5, 4.3e-6, 7.1e-7, 1.2e-7),
        strict=True,
    )
)
SECOND_BOARD = dict(
    zip(
        (0.54, 0.55, 0.56, 0.57, 0.58, 0.59, 0.60),
        (4.7e-5, 1.7e-5, 4.3e-6, 1.8e-6, 5.5e-7, 1.4e-7, 0.0),
        strict=True,
    )
)
"""V -> failures per bit, Salami et al. (MICRO 2018)."""

USERS_TABLE = """\
name: mine
description: a table of points
nominal_voltage_v: 1.0
sram:
  points:
    rows:
      - {voltage_v: 0.5, probability: 0.1, low: 0.05, high: 0.2}
      - {voltage_v: 0.7, probability: 0.001, low: 0, high: 0.002}
    none_seen_above: false
    source: my chip
  direction: both
  direction_source: seen on my chip
lanes:
  points:
    rows:
      - {voltage_v: 0.4, probability: 0.5, low: 0.4, high: 1}
      - {voltage_v: 0.9, probability: 0.01, low: 0.01, high: 0.02}
    none_seen_above: true
    clock_mhz: 250
    source: a guess
    assumption: true
"""


@pytest.fixture
def near() -> VoltageTable:
    return load_voltage(NEAR)


def users_table(folder, old="", new=""):
    """Write the user's table with `old` replaced, and return its path."""
    assert old in USERS_TABLE
    path = folder / "mine.yaml"
    path.write_text(USERS_TABLE.replace(old, new, 1))
    return path


def refusal(path) -> str:
    with pytest.raises(InputError) as error:
        load_voltage(path)
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", [NEAR, BRAM])
def test_bundled_tables_load_and_say_what_they_assume(name):
    table = load_voltage(name)
    assert table.name == name
    assert name in list_voltages()
    sentences = table.at(0.6, 500).assumptions
    assert all(sentence.endswith(".") for sentence in sentences)
    assert name in sentences[0]


@pytest.mark.parametrize(("ratio", "published"), MEASURED_14NM.items())
def test_the_curve_is_within_a_fifth_of_the_published_points_and_its_range_holds_them(
    near, ratio, published
):
    curve = near.sram.curve
    fitted = bit_failure_probability(ratio, curve.a.value, curve.b.value, vmin_v=1)
    assert fitted == pytest.approx(published, rel=0.2)
    ends = [(figure.low, figure.high) for figure in (curve.a, curve.b)]
    within = extremes(
        lambda a, b: bit_failure_probability(ratio, a, b, 1), (curve.a.value, curve.b.value), ends
    )
    assert within.low < published < within.high


def test_the_curve_agrees_with_no_failure_among_the_cells_measured_at_vmin(near):
    curve = near.sram.curve
    at_vmin = bit_failure_probability(1, curve.a.value, curve.b.value, 1)
    assert at_vmin * curve.cells < 0.1


@pytest.mark.parametrize(
    ("points", "vmin_v"), [(VC707, 0.61), (SECOND_BOARD, 0.59)], ids=["VC707", "second"]
)
def test_block_ram_lies_on_the_carried_curve_with_the_vmin_that_the_table_cites(
    near, points, vmin_v
):
    curve = near.sram.curve
    fitted = [
        voltage / (curve.a.value + curve.b.value * norm.isf(p))
        for voltage, p in points.items()
        if p
    ]
    assert len(fitted) >= 6
    assert fitted == pytest.approx([vmin_v] * len(fitted), abs=0.008)
    assert curve.vmin_v.low < min(fitted)
    assert max(fitted) < curve.vmin_v.high


@pytest.mark.parametrize("voltage_v", VC707)
def test_block_ram_points_are_the_mean_and_both_boards(voltage_v):
    found = load_voltage(BRAM).at(voltage_v, 500)
    boards = VC707[voltage_v], SECOND_BOARD[voltage_v]
    assert found.bit_failure_probability == pytest.approx(
        (min(boards), np.mean(boards), max(boards))
    )
    assert found.lane_error_rate_per_cycle == (0, 0, 0)
    assert found.direction == "one_to_zero"


def test_above_the_last_point_none_fails_but_that_point_is_a_bound():
    found = load_voltage(BRAM).at(1.0, 500)
    assert found.bit_failure_probability == (0, 0, 1.2e-7)
    assert any("above 0.6 V none was seen" in sentence for sentence in found.assumptions)


def test_figures_by_hand():
    # 0.75 V at Vmin = 1 V lies two deviations below a mean of 0.85 V
    assert bit_failure_probability(0.75, a=0.85, b=0.05, vmin_v=1) == pytest.approx(0.9772499)
    # 0.5 / (0.5 - 0.25)^2 = 8 against 1 / (1 - 0.25)^2 = 16/9
    assert delay_ratio(0.5, nominal_v=1, threshold_v=0.25, alpha=2) == pytest.approx(4.5)
    # a mean of 1 ns becomes 2 ns, a deviation of 0.1 ns 0.2 ns: 2.2 ns is one deviation later
    assert late_probability(2.2, mean_ns=1, sigma_ns=0.1, ratio=2) == pytest.approx(0.1586553)
    # half way between the probits of 0.1 and 0.001, -1.2815516 and -3.0902323
    assert interpolate(0.6, [(0.5, 0.1), (0.7, 0.001)]) == pytest.approx(norm.cdf(-2.1858919))


def test_the_bundled_table_at_half_a_volt_by_hand(near):
    found = near.at(0.5, 500)
    assert found.bit_failure_probability.best == pytest.approx(
        norm.cdf((0.7095 - 0.5 / 0.6) / 0.0542)
    )
    ratio = (0.5 / 0.15**1.3) / (0.9 / 0.55**1.3)
    assert found.lane_error_rate_per_cycle.best == pytest.approx(norm.sf((2 / ratio - 0.5) / 0.1))
    assert found.dynamic_energy_scale == pytest.approx((5 / 9) ** 2)
    said = " ".join(found.assumptions)
    for phrase in ("14 nm FinFET", "V/Vmin only", "assumed", "0.6 V [0.57, 0.66]", "HPCA 2019"):
        assert phrase in said
    assert "0.5 V, 500 MHz" in str(found)


def test_the_clock_limit_is_where_the_mean_path_and_k_deviations_just_fit(near):
    assert near.clock_limit_mhz(0.9, sigmas=5).best == pytest.approx(1000)
    limit = near.clock_limit_mhz(0.6, sigmas=3)
    assert limit.low < limit.best < limit.high
    rate = near.at(0.6, limit.best).lane_error_rate_per_cycle.best
    assert rate == pytest.approx(norm.sf(3))
    with pytest.raises(InputError, match=r"28nm-fpga-bram.*no lanes\.path_delay"):
        load_voltage(BRAM).clock_limit_mhz(0.6)


@pytest.mark.parametrize("name", [NEAR, BRAM])
def test_rates_keep_their_order_and_never_rise_with_voltage(name):
    table = load_voltage(name)
    points = [table.at(v, 500) for v in np.linspace(table.limits.low_v, table.limits.high_v, 101)]
    for field in ("bit_failure_probability", "lane_error_rate_per_cycle"):
        rates = np.array([getattr(point, field) for point in points])
        assert np.all(np.diff(rates, axis=1) >= 0), "low <= best <= high"
        assert np.all(np.diff(rates, axis=0) <= 0), "failures become rarer with voltage"
        assert rates.min() >= 0
        assert rates.max() <= 1


def test_a_slower_clock_never_errs_more_often(near):
    rates = [near.at(0.5, clock).lane_error_rate_per_cycle for clock in (100, 200, 300, 400, 500)]
    assert np.all(np.diff(np.array(rates), axis=0) >= 0)


def test_cells_that_fail_at_one_voltage_fail_at_every_lower_one(near):
    uniforms = np.random.default_rng(0).random(100_000)
    failing = [
        uniforms < near.at(voltage, 500).bit_failure_probability.best
        for voltage in (0.56, 0.54, 0.52, 0.50)
    ]
    assert all(np.all(lower[higher]) for higher, lower in pairwise(failing))
    assert [mask.sum() for mask in failing] == sorted(mask.sum() for mask in failing)
    assert failing[-1].mean() == pytest.approx(0.0112, rel=0.1)


@pytest.mark.parametrize(
    ("name", "voltage_v", "said"),
    [
        (NEAR, 0.499, r"voltage_v is 0.499: .*'28nm-near-threshold' allows 0.5 to 0.9 V \(lanes:"),
        (NEAR, 0.901, r"allows 0.5 to 0.9 V \(.*nominal voltage"),
        (BRAM, 0.539, r"allows 0.54 to 1 V \(sram: the points end there"),
        (BRAM, 1.01, r"allows 0.54 to 1 V"),
        (NEAR, nan, "voltage_v must be a number above 0, not nan"),
        (NEAR, inf, "voltage_v must be a number above 0, not inf"),
        (NEAR, -0.5, "voltage_v must be a number above 0"),
        (NEAR, True, "voltage_v must be a number above 0, not True"),
        (NEAR, "0.5", "voltage_v must be a number above 0, not '0.5'"),
    ],
)
def test_voltages_that_a_table_does_not_cover_are_refused(name, voltage_v, said):
    with pytest.raises(InputError, match=said):
        load_voltage(name).at(voltage_v, 500)


@pytest.mark.parametrize("clock_mhz", [0, -1, nan, inf, None, "fast"])
def test_a_clock_that_is_no_positive_number_is_refused(near, clock_mhz):
    with pytest.raises(InputError, match="clock_mhz must be a number above 0"):
        near.at(0.6, clock_mhz)


def test_a_curve_ends_where_its_highest_vmin_leaves_the_measurement(tmp_path):
    text = (FOLDER / f"{NEAR}.yaml").read_text()
    path = tmp_path / "own.yaml"
    path.write_text(text[: text.index("lanes:")] + "lanes:\n  own_rail: kept at 0.9 V\n")
    table = load_voltage(path)
    assert table.at(0.495, 500).lane_error_rate_per_cycle == (0, 0, 0)
    with pytest.raises(InputError, match=r"allows 0.495 to 0.9 V \(sram: .*V/Vmin = 0.75"):
        table.at(0.494, 500)


def test_a_users_table_of_points_loads_by_path(tmp_path):
    table = load_voltage(users_table(tmp_path))
    found = table.at(0.5, 250)
    assert found.bit_failure_probability == (0.05, 0.1, 0.2)
    between = table.at(0.6, 250)
    assert between.bit_failure_probability.best == pytest.approx(norm.cdf(-2.1858919))
    assert between.bit_failure_probability.low == 0, "beside none seen, none is the low end"
    assert between.lane_error_rate_per_cycle.high == 1
    assert any("2 measured points" in s and "my chip" in s for s in found.assumptions)
    assert any("2 assumed points" in s and "a guess" in s for s in found.assumptions)
    with pytest.raises(InputError, match=r"allows 0.5 to 0.7 V"):
        table.at(0.71, 250)
    with pytest.raises(InputError, match=r"clock_mhz is 500: .* hold for 250 MHz only"):
        table.at(0.6, 500)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name: mine", "name: mine\nname: yours", "line 2: key 'name' stands already in line 1"),
        ("source: my chip", "source: my chip\n    colour: red", "line 11: sram.points.colour: unk"),
        ("    source: my chip\n", "", "line 6: sram.points.source: this key is missing"),
        ("ility: 0.1,", "ility: -0.1,", "line 7: sram.points.rows.0.probability: should be gre"),
        ("ility: 0.1,", "ility: .nan,", "line 7: sram.points.rows.0.probability: should be a fin"),
        ("ility: 0.1,", "ility: 1.0,", "line 7: sram.points.rows.0.probability: should be less"),
        ("ility: 0.1,", "ility: 0.3,", "line 7: sram.points.rows.0.probability: low <= probabil"),
        ("v: 0.7", "v: 0.5", "line 8: sram.points.rows.1.voltage_v: is 0.5 after 0.5: volt"),
        ("v: 0.7", "v: 0.4", "line 8: sram.points.rows.1.voltage_v: is 0.4 after 0.5: volt"),
        ("high: 0.002", "high: 0.3", "line 8: sram.points.rows.1.high: is 0.3 after 0.2: what"),
        ("voltage_v: 0.9", "voltage_v: 1.2", "lanes.points.rows.1.voltage_v: is 1.2: it must be"),
        ("direction: both", "direction: up", "line 11: sram.direction: should be 'one_to_zero' or"),
        ("  direction: both", "  own_rail: x\n  direction: both", "sram.own_rail: exactly one of"),
        ("      - {voltage_v: 0.7, probability: 0.001, low: 0, high: 0.002}\n", "", "at least 2"),
        ("v: 0.4", "v: 0.8", "nominal_voltage_v: no voltage is covered: at least 0.8 V (lanes: "),
        ("nominal_voltage_v: 1.0", "nominal_voltage_v: yes", "line 3: nominal_voltage_v: "),
    ],
)  # fmt: skip
def test_broken_tables_are_refused_with_file_and_line(tmp_path, old, new, said):
    message = refusal(users_table(tmp_path, old, new))
    assert said in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("lowest_voltage_v: 0.5 ", "lowest_voltage_v: 0.4 ", "path_delay.lowest_voltage_v: is"),
        ("alpha: {value: 1.3, low: 1.2", "alpha: {value: 1.3, low: 0.9", "alpha: is 0.9 to 1.5"),
        ("b: {value: 0.0542, low: 0.0532", "b: {value: 0.0542, low: 0", "sram.curve.b.low: should"),
        ("vmin_v: {value: 0.60, low: 0.57", "vmin_v: {value: 0.60, low: 0.61", "vmin_v: low <="),
    ],
)  # fmt: skip
def test_broken_curves_are_refused_with_file_and_line(tmp_path, old, new, said):
    text = (FOLDER / f"{NEAR}.yaml").read_text()
    line = text[: text.index(old)].count("\n") + 1
    path = tmp_path / "broken.yaml"
    path.write_text(text.replace(old, new))
    message = refusal(path)
    assert f"line {line}: " in message
    assert said in message


def test_a_table_in_which_voltage_sets_nothing_is_refused(tmp_path):
    text = (FOLDER / f"{BRAM}.yaml").read_text()
    path = tmp_path / "idle.yaml"
    start, end = text.index("  points:"), text.index("  direction:")
    path.write_text(text[:start] + "  own_rail: kept\n" + text[end:])
    assert "lanes.own_rail: sram has it too" in refusal(path)


def test_an_unknown_table_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"unknown voltage table '3nm'.*28nm-fpga-bram, 28nm-near"):
        load_voltage("3nm")


def test_the_page_shows_the_tables_figures(near):
    page = (Path(__file__).parent.parent / "docs" / "voltage.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| 0.")]
    assert len(rows) == 5
    for row in rows:
        point = near.at(float(row[2:6]), 500)
        assert f"{point.bit_failure_probability.best:.1e} [" in row
        assert f"{point.lane_error_rate_per_cycle.best:.1e} [" in row
        assert f"{near.clock_limit_mhz(point.voltage_v).best:.0f} MHz [" in row


def test_the_figure_shows_both_parts_with_their_ranges(near):
    figure = figure_voltage([near, load_voltage(BRAM)], clocks_mhz=(500, 400))
    sram, lanes = figure.axes
    assert [len(axes.collections) for axes in (sram, lanes)] == [2, 2], "a band for each curve"
    assert png_bytes(figure).startswith(b"\x89PNG")

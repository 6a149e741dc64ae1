"""What surrounds the engine: traces, their laws, how they can be wrong, and rates that follow."""

import runpy
from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nce_sim.config.bundle import bundled
from nce_sim.config.machine import load_machine
from nce_sim.config.scenario import LaneFaults, list_scenarios, load_scenario
from nce_sim.config.trace_table import CONDITIONS, list_traces, read_trace
from nce_sim.config.voltage import load_voltage
from nce_sim.errors import InputError
from nce_sim.runtime.conditions import Conditions
from nce_sim.runtime.environment import Environment, environment_of, load_environment
from nce_sim.runtime.lane_rate import LaneRate

GOOD = """# a test
time_s,rate_factor,dead_share,temperature_c,supply_v,power_budget_mw
0,1,0,-10,0.9,500
0.5,20,0.1,25.5,0.6,300

2,0,1,110,0.55,400
"""


def written(folder, text):
    path = folder / "mine.csv"
    path.write_text(text)
    return path


def test_conditions_hold_from_their_time_to_the_next_and_the_last_for_ever(tmp_path):
    environment = load_environment(written(tmp_path, GOOD))
    first = Conditions(1, 0, -10, 0.9, 500)
    second = Conditions(20, 0.1, 25.5, 0.6, 300)
    last = Conditions(0, 1, 110, 0.55, 400)
    assert environment.columns == CONDITIONS
    assert [environment.at(time) for time in (0, 0.4999, 0.5, 1.9999, 2, 1e9)] == [
        first, first, second, second, last, last,
    ]  # fmt: skip


def test_what_a_trace_lacks_is_the_machines_own(tmp_path):
    environment = load_environment(written(tmp_path, "time_s,dead_share\n0,0.25\n"))
    assert environment.columns == ("dead_share",)
    assert environment.at(3) == Conditions(dead_share=0.25)


@given(st.permutations(CONDITIONS), st.integers(1, 5))
def test_the_order_of_columns_does_not_matter(tmp_path_factory, order, kept):
    names = order[:kept]
    values = dict(zip(CONDITIONS, (3.0, 0.5, -20.0, 0.7, 80.0), strict=True))
    row = ",".join(str(values[name]) for name in names)
    text = f"time_s,{','.join(names)}\n0,{row}\n"
    environment = load_environment(written(tmp_path_factory.mktemp("order"), text))
    assert environment.at(0) == Conditions(**{name: values[name] for name in names})


@given(
    st.lists(st.floats(1e-3, 10), min_size=1, max_size=8),
    st.lists(st.floats(0, 100), min_size=1, max_size=8),
)
def test_a_moment_is_found_as_by_looking_at_every_line(gaps, moments):
    times = [0.0]
    for gap in gaps:
        times.append(times[-1] + gap)
    steps = tuple(Conditions(rate_factor=float(place)) for place in range(len(times)))
    environment = Environment("made", tuple(times), steps, ("rate_factor",))
    for moment in moments + times:
        last = [step for time, step in zip(times, steps, strict=True) if time <= moment][-1]
        assert environment.at(moment) is last


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("rate_factor", "rates", 2, "'rates' is no column of a trace, but rate_factor, dead_share"),
        ("dead_share", "rate_factor", 2, "a column stands there twice"),
        ("time_s,rate_factor", "rate_factor,time_s", 2, "must be time_s and any of rate_factor"),
        ("time_s,", "", 2, "must be time_s and any of"),
        (",rate_factor,dead_share,temperature_c,supply_v,power_budget_mw", "", 2, "not time_s$"),
        (GOOD, "", 1, "not nothing"),
        (GOOD, "# one\n# two\n", 3, "not nothing"),
        ("0.5,20,", "0.5,,", 4, "rate_factor must be a number, not ''"),
        ("0.5,20,", "0.5,", 4, "there must be 6 columns, .* not 5"),
        ("0.5,20,", "0.5,20,20,", 4, "there must be 6 columns, .* not 7"),
        ("0.5,20,", "0.5,-20,", 4, "rate_factor must be a number of at least 0, not -20"),
        ("0.5,20,", "0.5,nan,", 4, "rate_factor must be a number of at least 0, not nan"),
        ("0.5,20,", "0.5,inf,", 4, "rate_factor must be a number of at least 0, not inf"),
        ("0.5,20,", "0.5,many,", 4, "rate_factor must be a number, not 'many'"),
        ("20,0.1,", "20,1.1,", 4, "dead_share must be a number from 0 to 1, not 1.1"),
        ("25.5", "-273.15", 4, "temperature_c must be a number above -273.15, not -273.15"),
        ("25.5", "-inf", 4, "temperature_c must be"),
        (",0.6,", ",0,", 4, "supply_v must be a number above 0, not 0"),
        (",300", ",-1", 4, "power_budget_mw must be a number above 0, not -1"),
        ("2,0,", "0.5,0,", 6, "time_s must rise from 0.5, not be 0.5"),
        ("2,0,", "0.1,0,", 6, "time_s must rise from 0.5, not be 0.1"),
        ("2,0,", "nan,0,", 6, "time_s must be a number of at least 0, not nan"),
        ("\n0,1,", "\n0.1,1,", 3, "the first time_s must be 0, not 0.1"),
    ],
)
def test_a_broken_trace_is_refused_with_file_and_line(tmp_path, old, new, line, said):
    assert old in GOOD
    path = written(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(InputError, match=said) as error:
        load_environment(path)
    assert str(error.value).startswith(f"{path}, line {line}: ")


def test_no_file_and_no_name_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        load_environment(tmp_path / "none.csv")
    with pytest.raises(InputError, match="unknown trace 'quiet': bundled are ageing, power-cap"):
        load_environment("quiet")


MADE = runpy.run_path(str(bundled("traces") / "make_traces.py"))


def test_bundled_traces_are_what_their_script_makes():
    assert sorted(MADE["LAWS"]) == list_traces()
    for name in list_traces():
        committed = (bundled("traces") / f"{name}.csv").read_text(encoding="utf-8")
        assert committed == MADE["text_of"](name)


@pytest.mark.parametrize("name", list_traces())
def test_every_card_says_where_its_figures_come_from(name):
    text = (bundled("traces") / f"{name}.csv").read_text(encoding="utf-8")
    for part in ("What it stands for", "Mechanism", "Law", "Acceleration", "Where the figures"):
        assert f"# {part}" in text
    assert "assumed" in text.lower()


def test_temperatures_stay_where_leakage_is_known_and_rates_follow_arrhenius():
    columns = read_trace("temperature-cycling").columns
    leakage = load_machine("nce-fused").technology.leakage
    for celsius, factor in zip(columns["temperature_c"], columns["rate_factor"], strict=True):
        kelvin = celsius + 273.15
        assert leakage.lowest_k <= kelvin <= leakage.highest_k
        assert factor == pytest.approx(exp(0.3 / 8.617333e-5 * (1 / 328.15 - 1 / kelvin)), rel=1e-4)


def test_dead_elements_stay_dead_by_weibulls_law():
    columns = read_trace("ageing").columns
    shares = columns["dead_share"]
    assert list(shares) == sorted(shares)
    for seconds, share in zip(columns["time_s"], shares, strict=True):
        assert share == pytest.approx(1 - exp(-((seconds / 0.005 / 34) ** 3)), rel=1e-4)


@pytest.mark.parametrize("name", list_scenarios())
def test_rates_of_bundled_scenarios_cover_their_traces(name):
    scenario = load_scenario(name)
    environment = environment_of(scenario)
    clock_mhz = load_machine(scenario.machine).config.clock_mhz
    rate = LaneRate.of(scenario.faults, environment, clock_mhz)
    assert all(0 <= rate.at(each) < 1e-3 for each in environment.conditions)
    assert environment.time_s[-1] < scenario.duration_s


def test_a_rate_follows_the_factor_or_the_supply_by_the_voltage_table():
    droop = load_environment("voltage-droop")
    fixed = LaneRate.of(LaneFaults(rate=2e-6), droop, 400)
    assert fixed.at(Conditions(rate_factor=3, supply_v=0.6)) == pytest.approx(6e-6)
    table = load_voltage("28nm-near-threshold")
    for figure in ("low", "best", "high"):
        voltage = {"table": "28nm-near-threshold", "figure": figure}
        rate = LaneRate.of(LaneFaults.model_validate({"voltage": voltage}), droop, 400)
        for each in droop.conditions[::20]:
            at_supply = table.at(each.supply_v, 400).lane_error_rate_per_cycle
            assert rate.at(each) == getattr(at_supply, figure) * each.rate_factor


def test_a_supply_that_the_table_does_not_cover_is_refused(tmp_path):
    low = load_environment(written(tmp_path, "time_s,supply_v\n0,0.45\n"))
    faults = LaneFaults.model_validate({"voltage": {"table": "28nm-near-threshold"}})
    with pytest.raises(InputError, match=r"environment 'mine': voltage_v is 0.45: .* 0.5 to 0.9"):
        LaneRate.of(faults, low, 400)


@pytest.mark.parametrize(
    ("name", "lacks"), [("power-cap", "power_budget_mw"), ("voltage-droop", "supply_v")]
)
def test_an_environment_without_what_the_scenario_goes_by_is_refused(name, lacks):
    scenario = load_scenario(name).model_copy(update={"environment": "ageing"})
    with pytest.raises(InputError, match=f"'{name}'.* 'ageing' has no column {lacks}: it has dead"):
        environment_of(scenario)

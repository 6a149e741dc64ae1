"""Scenarios as a whole: all policies on the same requests and faults, and the command."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hardware import examples
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from runtime_parts import Telling, context
from small_networks import one_thread
from typer.testing import CliRunner

from nce_sim.accuracy.worst_window import worst_window_differences, worst_windows
from nce_sim.cli.main import app, main
from nce_sim.config import scenario as config
from nce_sim.config.scenario import load_scenario
from nce_sim.errors import InputError
from nce_sim.runtime.answers import Answer, Asked
from nce_sim.runtime.check_cost import AddedCost
from nce_sim.runtime.conditions import Conditions
from nce_sim.runtime.policies.build import WATCHING, build_policy, start_point, watches
from nce_sim.runtime.shared_answers import SharedAnswers, Unchecked
from nce_sim.study.kept_surface import surface_of
from nce_sim.study.missions import Missions, Stream
from nce_sim.study.reconfiguration import OPTIMUM, hold_against, study_scenario
from nce_sim.study.scenario_engine import prepare_engine

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

TINY = """
name: tiny
description: A burst, and a request each millisecond.
machine: nce-28nm
ranking: {method: random}
grid: [0.0, 0.6, 1.0]
environment: radiation-burst
duration_s: 0.06
faults: {site: unprotected.lane, effect: flip, rate: 1.0e-6}
requests:
  arrivals: {kind: periodic, period_us: 1000, jitter_us: 4}
  deadline_us: 40
  fault_tolerant_time_us: 500
quality: {most_lost_points: 5.0, window_requests: 10}
monitor: {checked_share: 0.01, window_checks: 200}
surface: {inferences: 8, rates_a_decade: 1}
policies:
  - {kind: static, name: all protected, fraction: 0.0}
  - {kind: static, name: none protected, fraction: 1.0}
  - {kind: threshold, name: threshold, above: 0.001, below: 0.0001, hold_requests: 3}
  - {kind: tracking, name: tracking, least_checks: 20, probe_requests: 4}
  - {kind: deadline, name: deadline, fraction: 0.6, slack_us: 20}
  - {kind: pi, name: pi, setpoint: 0.001, proportional: 0.05, integral_per_s: 50.0}
  - {kind: oracle, name: oracle}
"""


def quiet(name, steps):
    return lambda done: None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("tiny")
    (made / "tiny.yaml").write_text(TINY)
    return made


@pytest.fixture(scope="module")
def engine(folder):
    return prepare_engine(load_scenario(folder / "tiny.yaml"), 0, quiet)


@pytest.fixture(scope="module")
def surface(engine, folder):
    return surface_of(engine, quiet, folder / "kept")


@pytest.fixture(scope="module")
def result(folder, surface):
    scenario = load_scenario(folder / "tiny.yaml")
    return study_scenario(scenario, fast=True, stage=quiet, keep=folder / "kept")


def test_all_policies_meet_all_requests_and_their_energy_adds_up(result):
    names = [each.name for each in result.scenario.policies]
    assert [each.name for each in result.played] == [*names, OPTIMUM]
    for each in result.played:
        mission = each.result
        assert mission.counts["answered"] == len(mission.answers) == 60
        spent = mission.spent
        assert spent.total_aj == spent.requests_aj + spent.idle_aj + spent.changes_aj
        assert spent.total_cycles == mission.end_cycle
        assert sum(mission.served.values()) == 60
    least = result.played[-1]
    assert least.regret == 0
    for each in result.played:
        expected = each.cost.total_aj / least.cost.total_aj - 1
        assert each.regret == pytest.approx(expected)


def test_only_those_who_watch_pay_for_checks(result):
    for each in result.played:
        assert (each.kind in WATCHING) >= (each.result.counts["checked"] > 0)
    static = result.played[1].result
    assert static.spent.requests_aj == 60 * result.grid.points[-1].energy_aj()
    assert static.counts["changes"] == 0
    threshold = next(each for each in result.played if each.name == "threshold")
    assert threshold.result.counts["checked"] > 0


def test_the_optimum_is_planned_with_no_more_than_any_static_split(result):
    statics = [each for each in result.played if each.is_static]
    assert result.plan.cost.total_aj <= min(each.cost.total_aj for each in statics)


def test_the_cheapest_adaptive_policy_stands_against_all_static_splits(result):
    adaptive = [each for each in result.played if each.is_adaptive]
    best = min(adaptive, key=lambda each: each.cost.total_aj)
    statics = [each for each in result.played if each.is_static]
    assert [(each.adaptive, each.static) for each in result.against] == [
        (best.name, each.name) for each in statics
    ]
    for each, static in zip(result.against, statics, strict=True):
        apart = best.worst_window.value - static.worst_window.value
        assert each.worst_window.value == pytest.approx(apart)
        assert each.worst_window.low <= apart <= each.worst_window.high
    assert hold_against(statics, 10, 0) == ()


def test_lags_are_those_of_the_largest_steps(result):
    assert {0.021, 0.022} <= set(result.lags)
    assert len(result.lags) == 3
    assert all(lag is None or lag.requests >= 1 for lag in result.lags.values())


def test_the_surface_is_measured_once_and_a_damaged_one_again(engine, surface, folder):
    begun = []

    def stage(name, steps):
        begun.append(name)
        return lambda done: None

    assert surface_of(engine, stage, folder / "kept") == surface
    assert begun == []
    (kept,) = (folder / "kept").iterdir()
    kept.write_bytes(b"no surface")
    assert surface_of(engine, stage, folder / "kept") == surface
    assert begun == ["measuring accuracy"]


def test_missions_of_any_length_need_no_more_than_a_byte_a_request(engine, surface):
    """The answers are kept for the paired comparison; else blocks of random numbers, some of each.

    Both missions are longer than all the blocks that are remembered.
    """
    arrivals = config.PeriodicArrivals(kind="periodic", period_us=20)
    requests = engine.scenario.requests.model_copy(update={"arrivals": arrivals})
    scenario = engine.scenario.model_copy(update={"requests": requests})
    often = replace(engine, scenario=scenario)

    def peak(count):
        missions = Missions(often, Stream.of(scenario, 500, 0, count), surface, fast=True)
        tracemalloc.start()
        missions.fly(scenario.policies[2], lambda: None)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(26_000) < peak(17_000) + 9_000 * 2 + 50_000


@examples(60)
@given(arrays(bool, (3, 17)), st.integers(1, 20))
def test_worst_windows_are_those_of_counting(right, window):
    size = min(window, 17)
    for row, found in zip(right, worst_windows(right, window), strict=True):
        assert found == min(row[k : k + size].mean() for k in range(18 - size))


def test_worst_windows_that_differ_surely_have_an_interval_apart_from_zero():
    draws = np.random.default_rng(2).random(2000)
    good, bad = draws < 0.95, draws < 0.7
    (same, apart) = worst_window_differences(good, [good, bad], 100, seed=1)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert 0 < apart.low <= apart.value <= apart.high < 1
    assert apart.confidence == pytest.approx(0.975)
    assert worst_window_differences(good, [good, bad], 100, seed=1) == [same, apart]
    with pytest.raises(InputError, match="same requests"):
        worst_window_differences(good, [good[:-1]], 100)


GIVEN = {
    "static": {"fraction": 0.4},
    "threshold": {"above": 0.1, "below": 0.01},
    "tracking": {},
    "power_cap": {},
    "deadline": {"fraction": 0.4, "slack_us": 5.0},
    "pi": {"setpoint": 0.1, "proportional": 1.0, "integral_per_s": 0.0},
    "oracle": {},
    "custom": {"import": "test_reconfigure:patient", "options": {"point": 2}},
}
KINDS = [each.model_fields["kind"].annotation.__args__[0]
         for each in config.Policy.__origin__.__args__]  # fmt: skip


def patient(context, point):
    return type("Patient", (), {"decide": lambda self, seen: point})()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_policy_is_built(kind):
    from runtime_parts import Steps, seen

    model = next(each for each in config.Policy.__origin__.__args__
                 if each.model_fields["kind"].annotation.__args__[0] == kind)  # fmt: skip
    made = model.model_validate({"kind": kind, "name": kind, **GIVEN[kind]})
    known = context(surroundings=Steps())
    policy = build_policy(made, known)
    assert policy.decide(seen()) in range(4)
    assert start_point(made, known) == (1 if kind == "static" else 0)
    assert watches(made) == (kind in ("threshold", "tracking", "pi", "custom"))


def test_a_custom_policy_may_do_without_checks():
    made = config.CustomPolicy(
        kind="custom", name="mine", checks=False, **{"import": "test_reconfigure:patient"}
    )
    assert not watches(made)


def test_answers_are_shared_and_checks_can_be_off():
    given = Answer(True, True, 10, 3, extra_cycles=70, extra_energy_aj=900)
    inner = Telling(lambda asked: given)
    shared = SharedAnswers(inner)
    asked = Asked(4, 100, 1, Conditions())
    assert shared.answer(asked) == shared.answer(asked) == given
    assert len(inner.asked) == 1
    bare = Unchecked(shared, [AddedCost(0, 0), AddedCost(30, 400)]).answer(asked)
    assert bare == Answer(True, True, 0, 0, extra_cycles=40, extra_energy_aj=500)
    assert len(inner.asked) == 1


# --- the command ---------------------------------------------------------------------------------


def run(folder, *options):
    return CliRunner().invoke(
        app, ["reconfigure", str(folder / "tiny.yaml"), "--out", str(folder / "out"), *options]
    )


@pytest.mark.parametrize("mode", [(), ("--fast",)])
def test_the_same_command_gives_the_same_bytes(folder, mode):
    first, second = (run(folder, "--requests", "30", "--json", *mode) for _ in range(2))
    assert first.exit_code == 0, first.output
    assert first.stdout == second.stdout
    written = folder / "out"
    assert (written / "summary.json").read_text() == first.stdout
    for name in ("points.csv", "series.csv", "index.html"):
        assert (written / name).is_file()


def test_the_table_has_all_policies(folder):
    shown = run(folder, "--duration", "0.02", "--fast").stdout
    for name in ("all protected", "threshold", "optimum"):
        assert len([line for line in shown.splitlines() if line.strip().startswith(name)]) == 2
    assert "deadline 40 us, fault tolerant time interval 500 us" in shown


BROKEN = {
    "": "line 1",
    "time_s\n0\n": "line 1: the first line but for comments must be time_s and any of",
    "rate_factor\n1\n": "line 1: the first line but for comments must be time_s",
    "time_s,rate_factor\n0,1\n0.02,2\n0.01,3\n": "line 4: time_s must rise from 0.02, not be 0.01",
    "time_s,rate_factor\n0,1\n0.01,-2\n": "line 3: rate_factor must be a number of at least 0",
    "time_s,rate_factor\n0,1\n0.01,nan\n": "line 3: rate_factor must be a number of at least 0",
    "time_s,rate_factor\n0,1\n0.01,\n": "line 3: rate_factor must be a number, not ''",
    "time_s,rate_factor\n0,1\n0.01\n": "line 3: there must be 2 columns",
    "time_s,rate_factor\n0.5,1\n": "line 2: the first time_s must be 0",
}


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_trace_is_refused_with_file_line_and_reason(folder, text, monkeypatch, capsys):
    trace, path = folder / "broken.csv", folder / "broken.yaml"
    trace.write_text(text)
    path.write_text(TINY.replace("radiation-burst", str(trace)))
    refused(["reconfigure", str(path), "--out", str(folder / "none")], monkeypatch)
    said = capsys.readouterr().err
    assert str(trace) in said
    assert BROKEN[text] in said
    assert not (folder / "none").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("nothing",), "unknown scenario 'nothing'"),
        (("radiation-burst", "--requests", "3", "--duration", "1"), "not both"),
        (("radiation-burst", "--duration", "-1"), "--duration must be a number of seconds above 0"),
    ],
)
def test_wrong_options_are_refused(options, said, folder, monkeypatch, capsys):
    refused(["reconfigure", *options, "--out", str(folder / "none")], monkeypatch)
    assert said in capsys.readouterr().err


def refused(arguments, monkeypatch):
    monkeypatch.setattr("sys.argv", ["nce-sim", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2

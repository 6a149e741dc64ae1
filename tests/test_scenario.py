"""Scenarios: what their YAML files may say, and how each mistake is told with its line."""

import pytest
from typer.testing import CliRunner

from nce_sim.cli.main import app
from nce_sim.config.bundle import bundled
from nce_sim.config.machine import load_machine
from nce_sim.config.scenario import (
    CustomPolicy,
    LaneFaults,
    list_scenarios,
    load_scenario,
)
from nce_sim.config.trace_table import list_traces
from nce_sim.errors import InputError
from nce_sim.faults.sites import LANE_COMPONENTS, Site
from nce_sim.resilience.ranking import METHODS
from nce_sim.runtime.arrivals import arrivals

SCENARIO = """
name: small
description: A scenario of the tests.
machine: nce-28nm
grid: [0, 0.5, 1]
environment: radiation-burst
duration_s: 0.08
faults:
  effect: flip
  rate: 1e-6
requests:
  arrivals: {kind: periodic, period_us: 20}
  deadline_us: 40
  fault_tolerant_time_us: 500
quality:
  most_lost_points: 2
monitor:
  checked_share: 0.1
policies:
  - {kind: static, name: half, fraction: 0.5}
  - kind: threshold
    name: steps
    above: 0.01
    below: 0.001
  - {kind: tracking, name: tracking}
  - {kind: custom, name: mine, import: "package.module:make", options: {patience: 3}}
"""


def load(folder, text=SCENARIO):
    path = folder / "small.yaml"
    path.write_text(text)
    return load_scenario(path)


def test_a_scenario_and_its_defaults(tmp_path):
    scenario = load(tmp_path)
    assert scenario.network == "cnn-digits"
    assert (scenario.ranking.method, scenario.ranking.images) == ("lrp", 500)
    assert (scenario.granularity, scenario.seed) == ("channel", 0)
    assert scenario.faults == LaneFaults(site="unprotected.lane", effect="flip", rate=1e-6)
    assert scenario.quality.window_requests == 200
    assert scenario.monitor.window_checks == 2000
    mine = scenario.policies[-1]
    assert isinstance(mine, CustomPolicy)
    assert (mine.factory, mine.options) == ("package.module:make", {"patience": 3})


FLAT = "{kind: periodic, period_us: 20}"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name: small", "name: small\nspeed: 3", "line 3: speed: unknown key"),
        ("name: small", "name: small\nname: big", "line 3: key 'name' stands already in line 2"),
        ("machine: nce-28nm\n", "", "machine: this key is missing"),
        ("[0, 0.5, 1]", "[0.5]", "line 5: grid: .*at least 2 items"),
        ("[0, 0.5, 1]", "[0, 0.5, 0.5]", "line 5: grid.2: is 0.5 after 0.5: it must rise"),
        ("[0, 0.5, 1]", "[0, 0.5, 1.5]", "line 5: grid.2: .*less than or equal to 1"),
        ("0.08", "0", "line 7: duration_s: .*greater than 0"),
        ("0.08", ".nan", "line 7: duration_s: .*finite number"),
        ("  rate: 1e-6\n", "", "line 8: faults: give one of rate and voltage, not none of them"),
        ("rate: 1e-6", "rate: -1", "line 10: faults.rate: .*greater than or equal to 0"),
        ("rate: 1e-6", "rate: 1\n  voltage: {table: x}", "line 8: faults: .*not both of them"),
        ("effect: flip", "effect: noise", "line 9: faults.effect: .*'zero', 'flip' or 'random'"),
        ("effect: flip", "site: protected.lane", "line 9: faults.site: .*'unprotected.lane'"),
        (FLAT, "{kind: often}", "line 12: requests.arrivals: .*'often'.*'periodic', 'poisson'"),
        (FLAT, "{kind: periodic}", "line 12: requests.arrivals.periodic.period_us: this key is mi"),
        (
            FLAT, "{kind: periodic, period_us: 2, jitter_us: 3}",
            "line 12: .*jitter_us: is 3: it must be at most period_us, 2, or requests would over",
        ),
        (
            FLAT, "{kind: bursts, requests: 5, spacing_us: 2, every_us: 9, jitter_us: 2}",
            "line 12: .*every_us: is 9: it must be at least .* 10, or bursts would overlap",
        ),
        (FLAT, "{kind: poisson, rate_per_s: 0}", "line 12: .*rate_per_s: .*greater than 0"),
        ("deadline_us: 40", "deadline_us: 900", "line 13: .*at most fault_tolerant_time_us, 500"),
        ("checked_share: 0.1", "checked_share: 0", "line 18: monitor.checked_share: .*greater th"),
        ("checked_share: 0.1", "checked_share: 2", "line 18: .*less than or equal to 1"),
        (
            "checked_share: 0.1", "missed_share: 0.7\n  false_alarm_rate: 0.3",
            "line 18: monitor.missed_share: is 0.7: with false_alarm_rate, 0.3, it must be below 1",
        ),
        ("most_lost_points: 2", "window_requests: 0", "line 16: quality.window_requests: .*great"),
        (
            "most_lost_points: 2", "window_requests: 9",
            "line 25: policies.2.kind: is tracking, which needs a target: give quality.most_lost",
        ),
        ("fraction: 0.5", "fraction: 0.4", "line 20: policies.0.fraction: is 0.4: the grid has 0,"),
        ("fraction: 0.5", "share: 0.5", "line 20: policies.0.static.share: unknown key"),
        ("below: 0.001", "below: 0.01", "line 24: .*below: is 0.01: it must be less than above, 0"),
        ("above: 0.01", "above: much", "line 23: policies.1.threshold.above: .*valid number"),
        ("name: steps", "name: half", "line 22: policies.1.name: 'half' stands there twice"),
        ("package.module:make", "package.module", "line 26: policies.3.custom.import: .*pattern"),
        ("kind: tracking,", "kind: guess,", "line 25: policies.2: .*'guess'"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line(tmp_path, old, new, said):
    assert old in SCENARIO
    with pytest.raises(InputError, match=said):
        load(tmp_path, SCENARIO.replace(old, new, 1))


def test_all_mistakes_are_told_at_once(tmp_path):
    text = SCENARIO.replace("0.08", "-1").replace("above: 0.01", "above: 7").replace("flip", "x")
    with pytest.raises(InputError) as error:
        load(tmp_path, text)
    for line in (7, 9, 23):
        assert f"line {line}: " in str(error.value)


@pytest.mark.parametrize(
    ("ranking", "said"),
    [
        ("{method: fault-aware}", "line 5: ranking.method: fault-aware needs a fault"),
        ("{fault: dropout=0.5}", "line 5: ranking.fault: goes with method: fault-aware"),
        ("{method: fault-aware, fault: heat=3}", "line 5: ranking.fault: .*pattern"),
        ("{method: fault-aware, fault: noise=3}", None),
    ],
)
def test_a_ranking_and_its_fault_go_together(tmp_path, ranking, said):
    text = SCENARIO.replace("grid:", f"ranking: {ranking}\ngrid:")
    if said is None:
        assert load(tmp_path, text).ranking.fault == "noise=3"
        return
    with pytest.raises(InputError, match=said):
        load(tmp_path, text)


def test_the_sites_are_those_of_lanes():
    for component in LANE_COMPONENTS:
        site = LaneFaults.model_validate({"site": f"unprotected.{component}", "rate": 0}).site
        assert Site.parse(site) == Site("unprotected", component)


def test_every_trace_has_a_scenario_and_readme_names_all():
    assert sorted(load_scenario(name).environment for name in list_scenarios()) == list_traces()
    readme = (bundled("scenarios") / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in readme for name in list_scenarios())


@pytest.mark.parametrize("name", list_scenarios())
def test_bundled_scenarios_are_whole(name):
    scenario = load_scenario(name)
    assert scenario.name == name
    assert scenario.ranking.method in METHODS
    clock_mhz = load_machine(scenario.machine).config.clock_mhz
    duration = round(scenario.duration_s * clock_mhz * 1e6)
    served = sum(1 for _ in arrivals(scenario.requests, duration, clock_mhz, scenario.seed))
    assert 2000 <= served <= 5000
    statics = [each.fraction for each in scenario.policies if each.kind == "static"]
    assert tuple(statics) == scenario.grid  # every static split stands beside the adaptive ones


def test_an_unknown_scenario_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"unknown scenario 'none': bundled are ageing, .*droop"):
        load_scenario("none")


def test_scenarios_are_listed():
    output = CliRunner().invoke(app, ["list"]).stdout
    assert "scenarios" in output
    assert "temperature-cycling" in output

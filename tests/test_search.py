"""Searches of spaces: what is refused, what is proposed, what is measured, what is answered."""

import json
import signal
import subprocess
import sys
import time
from math import isclose
from pathlib import Path

import numpy as np
import pytest

from nce_sim.cli.explore import explore
from nce_sim.config.machine import load_machine
from nce_sim.config.space import Range, SpaceConfig, draft_space, list_spaces, load_space
from nce_sim.config.vary import changed_machine
from nce_sim.errors import InputError
from nce_sim.report.explore_report import explore_report, full_rows, ranked, summary
from nce_sim.report.explore_words import explore_headline
from nce_sim.report.study_page import write_study
from nce_sim.study import measure_trials
from nce_sim.study.binding import binding
from nce_sim.study.measure_point import ChangedError
from nce_sim.study.measure_trials import measuring
from nce_sim.study.ppe_ratio import RATIO_FIELDS, family_of, ratio_changes
from nce_sim.study.search import BATCH, exhaust, objective_of, search
from nce_sim.study.search_quality import closeness
from nce_sim.study.space import open_space
from nce_sim.study.store import Store
from nce_sim.study.trial import judge

CONTENT = {
    "name": "tiny",
    "description": "A tiny space.",
    "network": "cnn-digits",
    "machine": "nce-small",
    "fault": {"dropout": 0.3},
    "accuracy": {"images": 20},
    "search": {
        "fraction": {"low": 0, "high": 0.9, "step": 0.1},
        "granularity": ["neuron", "channel"],
        "rankings": {"method": "random"},
        "machine": [
            {"field": "protected.array.scheme", "values": ["temporal_tmr", "tmr"]},
            {"field": "unprotected.buffers.resident_bytes", "values": [16384, 32768, 65536]},
        ],
    },
    "objective": {"minimise": "energy_uj"},
    "constraints": {"lost_points": 5, "latency_us": 120},
}


def space_of(**changes):
    return SpaceConfig.model_validate({**CONTENT, **changes})


@pytest.fixture(scope="module")
def space():
    return open_space(space_of())


def made_up(point):
    """A record as if measured: fewer neurons on PPEs save energy and cost accuracy."""
    changes = dict(point.changes)
    bytes_ = changes["unprotected.buffers.resident_bytes"]
    slow = changes["protected.array.scheme"] == "temporal_tmr"
    energy = 10 - 6 * point.fraction + bytes_ / 65536 + 0.5 * (point.granularity == "neuron")
    record = {
        "unprotected_neurons_share": point.fraction,
        "latency_us": 150 - 100 * point.fraction - 60 * (not slow),
        "energy_uj": energy, "energy_low_uj": energy / 2, "energy_high_uj": energy * 2,
        "area_mm2": 1.0, "area_low_mm2": 0.9, "area_high_mm2": 1.2, "power_w": 0.1,
        "identity": point.identity,
    }  # fmt: skip
    if point.accuracy is None:
        return record
    lost = round(1000 * point.fraction**2 * (0.1 if point.granularity == "neuron" else 0.3))
    accuracy = (950 - lost) / 1000
    return record | {
        "accuracy": accuracy, "accuracy_low": accuracy - 0.01, "accuracy_high": accuracy + 0.01,
        "fault_free": 0.95, "critical_sdc": lost / 1000, "confidence": 0.95, "inferences": 1000,
    }  # fmt: skip


@pytest.fixture
def measured(monkeypatch):
    """The points that were measured, with made-up records in place of real ones."""
    asked = []

    def measure_point(point, shared):
        asked.append(point)
        return made_up(point)

    monkeypatch.setattr(measure_trials, "measure_point", measure_point)
    return asked


def stub(space):
    """What a search measures with, at once and without a store."""

    def measure(choices):
        return [judge(space.config, each, made_up(space.place(each).point)) for each in choices]

    return measure


# What a space says


def test_a_range_holds_what_a_list_would():
    assert Range(low=0.1, high=0.9, step=0.2).values == (0.1, 0.3, 0.5, 0.7, 0.9)
    assert Range(low=0.0, high=1.0, step=0.3).values == (0.0, 0.3, 0.6, 0.9)


@pytest.mark.parametrize("name", list_spaces())
def test_bundled_spaces_fit_the_schema(name):
    assert load_space(name).name == name


def test_all_mistakes_of_a_file_are_listed_at_once(tmp_path):
    file = tmp_path / "wrong.yaml"
    file.write_text("""name: wrong
description: many mistakes
network: cnn-digits
machine: nce-small
fault: {dropout: 1.3}
accuracy: {images: 20, images_each: 3}
search:
  fraction: {low: 0.5, high: 0.1, step: 0.1}
  granularity: [neuron, pixel, neuron]
  rankings: {method: random}
  ppe_ratio: {keep: lanes, values: [0.5]}
  machine:
    - {field: protected.array.scheme, values: [tmr, tnr]}
    - {field: protected.array.colums, values: [2]}
    - {field: unprotected.array.columns, values: [2]}
    - {field: unprotected.supply_v, values: [0.7]}
objective: {minimise: money}
constraints: {lost_points: -1}
""")
    with pytest.raises(InputError) as refused:
        open_space(draft_space(file))
    told = str(refused.value)
    expected = (
        "line 5", "images_each", "line 8", "below low", "'pixel'", "money", "line 18",
    )  # fmt: skip
    assert [each for each in expected if each not in told] == []


def test_mistakes_in_what_a_space_names_are_listed_at_once(tmp_path):
    file = tmp_path / "wrong.yaml"
    file.write_text("""name: wrong
description: many mistakes
network: cnn-digits
machine: nce-small
fault: {dropout: 0.3}
accuracy: {images: 20, precision: float16}
search:
  fraction: [0.1, 0.1]
  rankings: [{method: rondom}, {method: random}]
  ppe_ratio: {keep: lanes, values: [0.5]}
  machine:
    - {field: protected.array.scheme, values: [tmr, tnr]}
    - {field: protected.array.colums, values: [2]}
    - {field: unprotected.array.columns, values: [2]}
    - {field: unprotected.supply_v, values: [0.7]}
objective: {minimise: energy_uj}
constraints: {lost_points: 1}
""")
    with pytest.raises(InputError) as refused:
        open_space(draft_space(file))
    told = str(refused.value)
    for line, word in (
        (8, "twice"), (9, "rondom"), (12, "'tnr'"), (13, "colums"), (14, "set by ppe_ratio"),
        (15, "voltage"),
    ):  # fmt: skip
        assert any(
            word in each for each in told.splitlines() if each.strip().startswith(f"line {line}:")
        ), (line, told)


def test_faults_that_nothing_asks_for_are_refused():
    with pytest.raises(InputError, match=r"fault: has no effect(?s:.*)accuracy: has no effect"):
        open_space(space_of(constraints={"latency_us": 10}))


def test_accuracy_needs_a_fault():
    with pytest.raises(InputError, match="fault: accuracy is measured under faults"):
        open_space(space_of(fault=None))


# Which points a space holds


def test_every_choice_is_a_point_with_its_values(space):
    choices = list(space.choices())
    assert len(set(choices)) == space.size == 120
    assert [space.choice_at(n) for n in range(space.size)] == choices
    point = space.place(choices[-1]).point
    assert (point.fraction, point.granularity) == (0.9, "channel")
    assert point.changes == (
        ("protected.array.scheme", "tmr"), ("unprotected.buffers.resident_bytes", 65536),
    )  # fmt: skip
    assert len({space.key(each) for each in choices}) == space.size


@pytest.mark.parametrize("family", ["lanes", "area"])
def test_a_ratio_takes_the_nearest_machine_of_its_family(family):
    base = load_machine("nce-small")
    for ratio in (0.05, 0.3, 0.5, 0.95):
        changes = ratio_changes(base, family, ratio)
        found = changed_machine("nce-small", changes)
        nearest = min(family_of(base, family), key=lambda m: abs(m.config.ppe_ratio - ratio))
        assert [field for field, _ in changes] == list(RATIO_FIELDS)
        assert found.config == nearest.config


def test_ratios_that_give_the_same_machine_are_one_point():
    search_axes = {**CONTENT["search"], "ppe_ratio": {"keep": "lanes", "values": [0.5, 0.51]}}
    space = open_space(space_of(search=search_axes))
    first, second = (c for c in space.choices() if c[:3] == (0, 0, 0) and c[4:] == (0, 0))
    assert space.key(first) == space.key(second)


def test_a_combination_that_no_machine_can_have_is_refused_by_name_and_counted():
    axes = {
        "fraction": 0.5,
        "rankings": {"method": "random"},
        "machine": [
            {"field": "clock_mhz", "values": [400, 500]},
            {"field": "protected.supply_v", "values": [0.9, 0.6]},
        ],
    }
    config = space_of(
        machine="nce-near-threshold", search=axes, fault=None, accuracy=None, constraints={}
    )
    space = open_space(config)
    refused = [space.place(each).refused for each in space.choices()]
    assert [each is not None for each in refused] == [False, False, False, True]
    assert all("supply_v" in each or "clock_mhz" in each for each in refused if each)


# What is proposed


def test_a_search_repeats_itself_and_a_longer_one_begins_as_a_shorter_one(space):
    long, again, short, other = (
        search(space, stub(space), trials, seed)
        for trials, seed in ((26, 1), (26, 1), (10, 1), (26, 2))
    )
    tried = [each.choice for each in long.trials]
    assert len(set(tried)) == 26
    assert tried == [each.choice for each in again.trials]
    assert tried[:10] == [each.choice for each in short.trials]
    assert tried != [each.choice for each in other.trials]


def test_a_search_as_long_as_the_space_tries_every_point_once():
    axes = {
        **CONTENT["search"],
        "fraction": [0.1, 0.5, 0.9],
        "machine": CONTENT["search"]["machine"][:1],
    }
    axes["machine"] = [
        *axes["machine"],
        {"field": "unprotected.buffers.resident_bytes", "values": 65536},
    ]
    space = open_space(space_of(search=axes))
    whole = exhaust(space, stub(space))
    found = search(space, stub(space), 50)
    assert found.is_whole
    assert sorted(each.choice for each in found.trials) == sorted(space.choices())
    assert objective_of(found.best) == objective_of(whole.best)


def test_every_point_tried_gives_the_optimum_of_an_obvious_loop(space):
    whole = exhaust(space, stub(space))
    best = None
    for choice in space.choices():
        record = made_up(space.place(choice).point)
        lost = 100 * (record["fault_free"] - record["accuracy"])
        if lost <= 5 and record["latency_us"] <= 120:
            best = record["energy_uj"] if best is None else min(best, record["energy_uj"])
    assert objective_of(whole.best) == best
    assert all(each.is_feasible for each in whole.feasible)
    assert len(whole.trials) == space.size


def test_what_limits_the_best_point_binds(space):
    whole = exhaust(space, stub(space))
    (bound,) = binding(whole)
    assert bound.constraint.quantity == "lost_points"
    assert bound.is_certain
    free = open_space(space_of(constraints={"lost_points": 100, "latency_us": 120}))
    assert objective_of(bound.rival) == objective_of(exhaust(free, stub(free)).best)


def test_closeness_is_that_of_the_searches(space):
    whole = exhaust(space, stub(space))
    rows = closeness(whole, 8, range(3))
    assert [(each.sampler, each.trials) for each in rows] == [
        (sampler, trials) for sampler in ("tpe", "random") for trials in (2, 4, 8)
    ]
    last = next(each for each in rows if (each.sampler, each.trials) == ("tpe", 8))
    best = objective_of(whole.best)
    gaps = [objective_of(search(space, stub(space), 8, seed).best) / best - 1 for seed in range(3)]
    assert isclose(last.gap, np.mean(gaps))
    assert last.optimal == np.mean([isclose(gap, 0) for gap in gaps])


# What is measured


def test_cost_is_measured_first_and_accuracy_only_where_it_may_matter(space, measured, tmp_path):
    trials = measuring(space, Store(tmp_path))(list(space.choices())[::3])
    dear = {each.choice for each in trials if "latency_us" in each.breaks}
    assert dear
    for trial in trials:
        assert trial.is_measured == (trial.choice not in dear)
        if trial.choice in dear:
            assert not trial.is_feasible
            assert next(k for k in trial.constraints if k.quantity == "lost_points").is_met is None
    with_accuracy = [point for point in measured if point.accuracy is not None]
    assert len(with_accuracy) == len(trials) - len(dear)


def test_a_search_on_a_full_store_measures_nothing_and_finds_the_same(space, measured, tmp_path):
    first = search(space, measuring(space, Store(tmp_path)), 3 * BATCH)
    count = len(measured)
    assert count > 0
    assert search(space, measuring(space, Store(tmp_path)), 3 * BATCH).trials == first.trials
    assert len(measured) == count


def test_points_that_cannot_run_are_refused_once_and_files_that_changed_stop_the_search(
    space, monkeypatch, tmp_path
):
    asked = []

    def refuse(point, shared):
        asked.append(point)
        if point.fraction > 0.5:
            raise InputError("a tile does not fit")
        return made_up(point)

    monkeypatch.setattr(measure_trials, "measure_point", refuse)
    measure = measuring(space, Store(tmp_path))
    choices = [each for each in space.choices() if each[0] in (2, 8)]
    trials = measure(choices)
    refused = [each for each in trials if each.refused == "a tile does not fit"]
    assert {each.choice[0] for each in refused} == {8}
    assert not any(each.is_feasible for each in refused)
    count = len(asked)
    assert measure(choices) == trials
    assert len(asked) == count

    def changed(point, shared):
        raise ChangedError("the network changed")

    monkeypatch.setattr(measure_trials, "measure_point", changed)
    with pytest.raises(InputError, match="changed"):
        measure([each for each in space.choices() if each[0] == 3])


def test_lost_points_have_the_interval_of_a_paired_difference(space):
    record = made_up(space.place(space.choice_at(60)).point)
    lost = judge(space.config, (), record).estimates["lost_points"]
    assert isclose(lost.value, 100 * (record["fault_free"] - record["accuracy"]))
    assert lost.low < lost.value < lost.high
    assert lost.high - lost.low < 100 * (record["accuracy_high"] - record["accuracy_low"])
    untouched = judge(space.config, (), made_up(space.place(space.choice_at(0)).point))
    assert untouched.estimates["lost_points"].high == 0
    sequential = space_of(accuracy={"images": 20, "half_width": 0.05})
    wide = judge(sequential, (), record).estimates["lost_points"]
    assert isclose(wide.high, 100 * (record["fault_free"] - record["accuracy_low"]))


def test_power_has_the_range_of_energy(space):
    record = made_up(space.place(space.choice_at(60)).point)
    power = judge(space.config, (), record).estimates["power_w"]
    assert (power.low, power.value, power.high) == pytest.approx((0.05, 0.1, 0.2))


# What is answered


def test_the_answer_says_what_is_best_and_whether_its_whole_interval_is(space, tmp_path):
    result = search(space, stub(space), 40)
    told = " ".join(explore_headline(result, None, []))
    assert f"{result.best.objective.value:.3g}" in told
    assert "at most 5" in told
    assert ("not by the whole interval" in told) != result.best.is_wholly_feasible
    order = ranked(result)
    assert order[: len(result.feasible)] == list(result.feasible)
    rows = full_rows(result)
    assert len(rows) == 40
    assert sum(row["feasible"] for row in rows) == len(result.feasible)
    assert summary(result, None, [])["best"]["choice"] == space.values(result.best.choice)
    write_study(explore_report(result, None, [], 0), tmp_path)
    assert (tmp_path / "points.csv").read_text().count("\n") == 41


def test_a_search_without_a_feasible_point_says_what_is_nearest(tmp_path):
    space = open_space(space_of(constraints={"lost_points": 0, "latency_us": 1}))
    result = search(space, stub(space), 8)
    assert result.best is None
    assert "nearest is" in explore_headline(result, None, [])[0]
    write_study(explore_report(result, None, [], 0), tmp_path)


def test_a_search_of_machines_that_cannot_be_built_says_so(space, tmp_path):
    def refuse(choices):
        return [judge(space.config, each, {}, "no such machine") for each in choices]

    result = search(space, refuse, 6)
    told = explore_headline(result, None, [])
    assert "can be built" in told[0]
    assert "Refused (6 points): no such machine." in told
    write_study(explore_report(result, None, [], 0), tmp_path)


# The command

COMMAND = [sys.executable, "-c", "from nce_sim.cli.main import main; main()", "explore"]


def write_space(folder):
    content = {
        **CONTENT,
        "search": {**CONTENT["search"], "fraction": [0.2, 0.5, 0.8]},
        "constraints": {"lost_points": 60, "latency_us": 120},
    }
    (folder / "space.yaml").write_text(json.dumps(content))


def test_a_killed_search_goes_on_and_gives_the_same_bytes_with_any_number_of_workers(
    tmp_path, monkeypatch, capsys
):
    write_space(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    arguments = [*COMMAND, "space.yaml", "--trials", "12"]
    killed = subprocess.Popen([*arguments, "--out", "killed", "--workers", "2"])
    records = tmp_path / "killed" / "store" / "records"
    while killed.poll() is None and len(list(records.glob("*/*"))) < 3:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    kept = {path: path.stat().st_mtime_ns for path in records.glob("*/*")}
    assert len(kept) >= 3
    explore("space.yaml", trials=12, out=Path("killed"), workers=1)
    resumed = capsys.readouterr().out.replace("killed", "calm")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept

    calm = subprocess.run(
        [*arguments, "--out", "calm", "--workers", "1"], capture_output=True, text=True, check=False
    )
    assert calm.returncode == 0, calm.stderr
    assert "Least energy among the points tried" in calm.stdout
    assert calm.stdout == resumed
    names = [path.relative_to("calm") for path in Path("calm").rglob("*") if path.is_file()]
    pages = [name for name in names if name.parts[0] != "store"]
    assert {"index.html", "points.csv"} <= {name.name for name in pages}
    for name in pages:
        assert ("calm" / name).read_bytes() == ("killed" / name).read_bytes(), name

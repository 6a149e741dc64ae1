"""Sweeps: points, their records, and the command as a user runs it."""

import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest
from typer.testing import CliRunner

import nce_sim as nce
from nce_sim.accuracy.outcomes import PersistentErrors, outcome_named
from nce_sim.cli.main import app
from nce_sim.config.campaign import DropoutFault, HardwareFault
from nce_sim.config.study import AccuracySettings, Axes, StudyConfig, StudyRanking, draft_study
from nce_sim.config.vary import changed_machine
from nce_sim.errors import InputError
from nce_sim.report.sweep_making import describe_sweep
from nce_sim.report.sweep_report import write_sweep
from nce_sim.study.estimate import estimate
from nce_sim.study.measure_point import PointTask, macs_share, measure_point
from nce_sim.study.parallel import Engine
from nce_sim.study.point import points_of
from nce_sim.study.resources import Resources
from nce_sim.study.store import Shared, Store
from nce_sim.study.sweep import plan_sweep, run_sweep

LANE = {"site": "unprotected.lane", "process": {"kind": "permanent", "count": 3},
        "effect": {"kind": "zero"}}  # fmt: skip
RANKINGS = (StudyRanking(images=32), StudyRanking(method="random"))


@pytest.fixture(scope="module")
def resources():
    return Resources()


def study(**changes):
    axes = {
        "networks": "cnn-digits", "machines": "nce-28nm", "rankings": RANKINGS,
        "fractions": [0.0, 0.5, 1.0], "faults": [DropoutFault(dropout=0.3)],
    }  # fmt: skip
    about = {"name": "small", "description": "of the tests", "accuracy": {"images": 32}}
    about |= {key: changes.pop(key) for key in list(changes) if key in StudyConfig.model_fields}
    return StudyConfig(grid=Axes(**{**axes, **changes}), **about)


def quiet(_name, _steps):
    return lambda _done: None


def run(config, folder, resources, workers=1):
    return run_sweep(plan_sweep(config, resources), Store(folder), Engine(workers), quiet)


def test_a_record_is_what_simulate_and_evaluate_say(resources):
    point = points_of(study(), resources)[1]
    record = measure_point(point, Shared(None))
    network, test = nce.load_model("cnn-digits"), nce.load_data("digits", "test").first(32)
    train = nce.load_data("digits", "ranking").first(32)
    split = nce.rank(network, train.images, train.labels).split(0.5)
    simulated = nce.simulate(network, nce.load_machine("nce-28nm"), split)
    result = nce.evaluate(network, test.images, test.labels, split, nce.Dropout(0.3))
    assert record["method"] == "lrp"
    assert record["fault"] == "dropout p = 0.3"
    assert record["latency_cycles"] == simulated.latency_cycles
    assert record["energy_uj"] == simulated.energy.total_pj / 1e6
    assert record["area_high_mm2"] == simulated.area.high_mm2
    assert record["accuracy"] == result.accuracy
    assert (record["accuracy_low"], record["accuracy_high"]) == result.interval
    assert record["sdc"] == result.sdc.value
    assert record["unprotected_macs_share"] == pytest.approx(simulated.mac_share_unprotected)
    assert record["identity"] == point.identity


def test_faults_in_hardware_strike_the_varied_machine(resources):
    config = study(
        faults=[HardwareFault.model_validate(LANE)], fractions=0.5,
        vary={"field": "unprotected.array.columns", "values": [8]},
    )  # fmt: skip
    point = points_of(config, resources)[0]
    record = measure_point(point, Shared(None))
    network, test = nce.load_model("cnn-digits"), nce.load_data("digits", "test").first(32)
    train = nce.load_data("digits", "ranking").first(32)
    split = nce.rank(network, train.images, train.labels).split(0.5)
    machine = changed_machine("nce-28nm", (("unprotected.array.columns", 8),))
    schedule = nce.simulate(network, machine, split).schedule
    fault = nce.Fault(
        nce.Site.parse("unprotected.lane"), nce.Permanent(nce.Elements(count=3)), nce.Zero()
    )
    result = nce.evaluate(network, test.images, test.labels, split, fault, schedule=schedule)
    assert record["accuracy"] == result.accuracy
    assert record["precision"] == result.precision
    assert record["unprotected.array.columns"] == 8
    assert record["fault"] == "unprotected.lane permanent count = 3 zero"


def test_an_identity_covers_what_affects_a_record_and_nothing_else(resources):
    config = study()
    points = points_of(config, resources)
    renamed = points_of(config.model_copy(update={"name": "other"}), resources)
    assert [p.identity for p in points] == [p.identity for p in renamed]
    base = points[1]
    others = [
        replace(base, fraction=0.4), replace(base, granularity="channel"), replace(base, seed=1),
        replace(base, cost=False), replace(base, faults=(DropoutFault(dropout=0.2),)),
        replace(base, ranking=StudyRanking(images=33)), replace(base, inputs=()),
        replace(base, accuracy=AccuracySettings(images=31)),
        replace(base, network=replace(base.network, identity="0")),
        replace(base, machine=replace(base.machine, identity="0")),
    ]  # fmt: skip
    assert len({each.identity for each in [base, *others]}) == len(others) + 1
    elsewhere = replace(base, machine=replace(base.machine, place="/a/copy.yaml"))
    assert elsewhere.identity == base.identity


def test_workers_and_order_change_nothing(tmp_path, resources):
    config = study(faults=[DropoutFault(dropout=0.3), DropoutFault(dropout=0.5)])
    one = run(config, tmp_path / "one", resources)
    two = run(config, tmp_path / "two", resources, workers=2)
    assert json.dumps(one.rows) == json.dumps(two.rows)
    alone = [PointTask(point).compute(Shared(None)) for point in reversed(one.points)]
    for row, record in zip(one.rows, reversed(alone), strict=True):
        assert {
            name: value
            for name, value in row.items()
            if value is not None and not name.startswith("gain")
        } == {name: value for name, value in record.items() if value is not None}


def test_gains_are_paired_differences_from_the_first_ranking(tmp_path, resources):
    result = run(study(faults=[DropoutFault(dropout=0.5)]), tmp_path, resources)
    network, test = nce.load_model("cnn-digits"), nce.load_data("digits", "test").first(32)
    train = nce.load_data("digits", "ranking").first(32)
    lrp = nce.rank(network, train.images, train.labels)
    random = nce.rank(network, None, None, "random")
    for row in result.rows:
        if row["method"] == "lrp":
            assert row["gain"] is None
            continue
        mine, theirs = (
            nce.evaluate(
                network, test.images, test.labels, ranking.split(row["fraction"]), nce.Dropout(0.5)
            )
            for ranking in (random, lrp)
        )
        gain = mine.minus(theirs)
        assert (row["gain"], row["gain_low"], row["gain_high"]) == (gain.value, gain.low, gain.high)
    assert [row["method"] for row in result.rows] == ["lrp"] * 3 + ["random"] * 3


def test_faults_in_hardware_are_drawn_to_a_half_width_and_judged_by_any_outcome(
    tmp_path, resources
):
    config = study(
        faults=[HardwareFault.model_validate(LANE)], fractions=0.5, measure=["accuracy"],
        accuracy={"images": 32, "half_width": 0.15, "outcome": "persistent=2"},
    )  # fmt: skip
    lrp, random = run(config, tmp_path, resources).rows
    network, test = nce.load_model("cnn-digits"), nce.load_data("digits", "test").first(32)
    machine = nce.load_machine("nce-28nm")
    lanes = nce.Elements(count=3)
    fault = nce.Fault(nce.Site.parse("unprotected.lane"), nce.Permanent(lanes), nce.Zero())
    split = nce.rank(network, None, None, "random").split(0.5)
    result = nce.evaluate(
        network, test.images, test.labels, split, fault, half_width=0.15,
        schedule=nce.simulate(network, machine, split).schedule, outcome=PersistentErrors(2),
    )  # fmt: skip
    assert random["score"] == 1 - result.harm.value
    assert random["inferences"] == len(result.right)
    assert random["score_high"] - random["score_low"] <= 0.3
    assert random["fault_free_score"] == 1 - result.fault_free_harm
    assert lrp["gain"] is None
    assert random["gain_low"] <= random["gain"] <= random["gain_high"]


def test_two_studies_share_points_and_a_resumed_one_repeats_nothing(
    tmp_path, resources, monkeypatch
):
    small, large = study(fractions=[0.5]), study(fractions=[0.0, 0.5])
    run(small, tmp_path, resources)
    plan = plan_sweep(large, resources)
    assert len(plan.missing(Store(tmp_path))) == 2
    whole = run(large, tmp_path, resources)
    assert [row["fraction"] for row in whole.rows] == [0.0, 0.5, 0.0, 0.5]
    monkeypatch.setattr(PointTask, "compute", lambda *_: pytest.fail("computed again"))
    assert run(large, tmp_path, resources).rows == whole.rows


def test_alike_splits_are_evaluated_once(tmp_path, resources):
    run(study(fractions=[0.0, 1.0], faults=[DropoutFault(dropout=p) for p in (0.1, 0.2)]),
        tmp_path, resources)  # fmt: skip
    kept = list((tmp_path / "shared" / "accuracies").glob("*/*"))
    assert len(kept) == 3  # nothing unprotected, and everything under each fault


def test_cost_only_and_accuracy_only(tmp_path, resources):
    cost = run(study(measure=["cost"], faults=[], accuracy=None), tmp_path / "c", resources)
    assert "accuracy" not in cost.rows[0]
    assert "energy_uj" in cost.rows[0]
    accuracy = run(study(measure=["accuracy"], machines=[]), tmp_path / "a", resources)
    assert "energy_uj" not in accuracy.rows[0]
    assert "machine" not in accuracy.rows[0]
    assert accuracy.rows[1]["unprotected_macs_share"] == cost.rows[1]["unprotected_macs_share"]


def test_equal_points_are_computed_once(resources):
    plan = plan_sweep(study(fractions=[0.5, 0.5]), resources)
    assert (plan.asked, len(plan.points)) == (4, 2)


def test_a_seed_takes_the_place_of_the_studys(resources):
    plan = plan_sweep(study(seeds=[0, 1]), resources, seed=5)
    assert {point.seed for point in plan.points} == {5}


def test_macs_of_a_whole_split(resources):
    network = resources.network("cnn-digits")
    ranking = nce.rank(network, None, None, "random")
    assert macs_share(network, ranking.split(0)) == 0
    assert macs_share(network, ranking.split(1)) == 1


def test_an_estimate_counts_equal_work_once(resources):
    points = points_of(study(), resources)
    found = estimate(points, resources, 2)
    assert found.points == len(points)
    assert found.inferences == 32 * (1 + 2 + 1)
    assert found.seconds > 0
    assert found.memory_bytes > 2**20


YAML = """
name: mine
description: as a user writes it
grid:
  networks: cnn-digits
  machines: nce-28nm
  rankings: [{method: random}]
  fractions: [0, 0.5]
  faults: {gaussian_noise: 1}
accuracy: {images: 64, half_width: 0.2, calibration_images: 32}
"""


def command(*arguments):
    return CliRunner().invoke(app, ["sweep", *map(str, arguments)], catch_exceptions=False)


def test_the_command(tmp_path):
    path, out = tmp_path / "mine.yaml", tmp_path / "out"
    path.write_text(YAML)
    planned = command(path, "--out", out, "--workers", 1, "--dry-run")
    assert "2 points, 2 of them distinct; 0 are in the store" in planned.output
    assert not out.exists()
    assert command(path, "--out", out, "--workers", 1, "--parquet").exit_code == 0
    names = ("points.csv", "summary.json", "index.html", "points.parquet")
    first = {name: (out / name).read_bytes() for name in names}
    shutil.rmtree(out / "store" / "records")
    printed = command(path, "--out", out, "--workers", 1, "--parquet", "--json")
    assert {name: (out / name).read_bytes() for name in names} == first
    assert [row["fraction"] for row in json.loads(printed.output)] == [0, 0.5]
    planned = command(path, "--out", out, "--workers", 1, "--dry-run", "--json")
    assert json.loads(planned.output)["in_store"] == 2


def test_another_outcome_is_a_score_beside_the_accuracy(tmp_path, resources):
    result = run(study(accuracy={"images": 32, "outcome": "confident=0.8"}), tmp_path, resources)
    network, test = nce.load_model("cnn-digits"), nce.load_data("digits", "test").first(32)
    row = next(row for row in result.rows if (row["method"], row["fraction"]) == ("random", 0.5))
    found = nce.evaluate(
        network, test.images, test.labels, nce.rank(network, None, None, "random").split(0.5),
        nce.Dropout(0.3), outcome=outcome_named("confident=0.8"),
    )  # fmt: skip
    assert row["score"] == 1 - found.harm.value
    assert (row["score_low"], row["score_high"]) == (1 - found.harm.high, 1 - found.harm.low)
    assert row["accuracy"] == found.accuracy
    assert row["score"] >= row["accuracy"]
    assert row["outcome"] == found.outcome
    answer = write_sweep(result.rows, describe_sweep(result, ""), tmp_path / "page")
    assert any("front of score, energy" in sentence for sentence in answer)


def test_outcomes_of_a_study_are_checked(resources):
    with pytest.raises(InputError, match=r"accuracy\.outcome: unknown outcome 'worst'"):
        points_of(study(accuracy={"images": 32, "outcome": "worst"}), resources)
    lanes = study(
        accuracy={"images": 32, "outcome": "confident=0.8"}, fractions=0.5,
        faults=[HardwareFault.model_validate(LANE)],
    )  # fmt: skip
    with pytest.raises(InputError, match=r"outcome confident=0\.8 goes with one dropout"):
        points_of(lanes, resources)


RESILIENCE = """\
name: layers
description: Of the tests.
measure: resilience
grid:
  networks: cnn-digits
  rankings: [{method: lrp, images: 64}, {method: gradient, images: 64}, {method: random}]
"""


def test_a_study_of_rankings_tells_of_layers(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(RESILIENCE)
    command = ["sweep", str(path), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert CliRunner().invoke(app, command).exit_code == 0
    rows = pd.read_csv(tmp_path / "out" / "points.csv")
    network, train = nce.load_model("cnn-digits"), nce.load_data("digits", "ranking").first(64)
    ranking = nce.rank(network, train.images, train.labels)
    lrp = rows[rows["method"] == "lrp"].set_index("layer")
    for name, relevance in ranking.relevance.items():
        expected = 1 / relevance.sum()
        assert lrp.loc[name, "harmonic_by_neurons"] == pytest.approx(expected, rel=1e-6)
    names = {each.name for each in (tmp_path / "out" / "figures").iterdir()}
    assert {"layer_resilience.svg", "spatial_resilience.png"} <= names


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("  fractions: [0.5]\n", "fractions: has no effect: measure names resilience"),
        ("  faults: [{dropout: 0.1}]\n", "faults: has no effect"),
        ("accuracy: {images: 9}\n", "accuracy: has no effect"),
    ],
)
def test_a_study_of_rankings_takes_no_splits(tmp_path, more, message):
    path = tmp_path / "study.yaml"
    path.write_text(RESILIENCE + more)
    with pytest.raises(InputError, match=message):
        points_of(draft_study(path))


def test_splits_must_be_given():
    with pytest.raises(InputError, match="fractions: says which share"):
        points_of(study(fractions=()))

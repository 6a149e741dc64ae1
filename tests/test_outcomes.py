"""Outcomes: harms by hand, through evaluate with and without a half-width, and comparisons."""

import numpy as np
import pytest
import torch
from small_networks import all_convolutional, images, labels

import nce_sim as nce
from nce_sim.accuracy.answers import NOT_FINITE, Answers
from nce_sim.accuracy.evaluate import Variant, predict_variants
from nce_sim.accuracy.outcomes import (
    TOP1,
    ConfidentErrors,
    ConfusionCosts,
    PersistentErrors,
    judged,
    outcome_named,
)
from nce_sim.accuracy.sampling import times_before
from nce_sim.study.ranking_comparison import ComparisonPlan, compare_rankings

CLASSES = np.array([0, 1, 2, NOT_FINITE, 1, 0], np.int16)
TRUTH = np.array([0, 2, 2, 0, 0, 1])
SURE = np.array([0.9, 0.8, 0.4, 1, 0.3, 0.5], np.float32)
COSTS = np.array([[0, 0.5, 0.1], [0.2, 0, 0.1], [0.3, 0.25, 0]])


class Fixed:
    """A user's own outcome."""

    name, unit, needs_confidence = "always half", 1, False

    def harm(self, answers, labels):
        return np.full(len(labels), 0.5)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (TOP1, [0, 1, 0, 1, 1, 1]),
        (ConfusionCosts(COSTS), [0, 0.25, 0, 1, 0.5, 0.2]),
        (ConfidentErrors(0.5), [0, 1, 0, 1, 0, 1]),
        (PersistentErrors(2), [0, 0, 1]),
        (PersistentErrors(4), [0]),
        (Fixed(), [0.5, 0.5, 0.5, 1, 0.5, 0.5]),
    ],
)
def test_harms_by_hand(outcome, expected):
    assert judged(outcome, Answers(CLASSES, SURE), TRUTH).tolist() == expected


def test_outcomes_have_names(tmp_path):
    path = tmp_path / "costs.csv"
    np.savetxt(path, COSTS, delimiter=",")
    assert (outcome_named(f"costs={path}").costs == COSTS).all()
    assert outcome_named("confident=0.5") == ConfidentErrors(0.5)
    assert outcome_named("persistent=3") == PersistentErrors(3)
    assert outcome_named("top-1") is TOP1
    assert outcome_named("test_outcomes:Fixed").name == "always half"
    for wrong in ("top-2", "confident=x", "confident=2", "persistent=0", "costs=none.csv", "a:b",
                  "math:inf"):  # fmt: skip
        with pytest.raises(nce.InputError):
            outcome_named(wrong)


@pytest.fixture(scope="module")
def network():
    return nce.Workload.from_module(all_convolutional(), torch.zeros(1, 2, 12, 12))


@pytest.fixture(scope="module")
def split(network):
    return nce.rank(network, None, None, "random").split(1.0)


@pytest.mark.parametrize("outcome", [ConfidentErrors(0.5), PersistentErrors(3)])
@pytest.mark.parametrize("half_width", [None, 0.1])
def test_evaluate_says_the_harm(network, split, outcome, half_width):
    found = nce.evaluate(
        network, images(100), labels(100), split, nce.Dropout(0.5), outcome=outcome,
        half_width=half_width,
    )  # fmt: skip
    assert found.outcome == outcome.name
    assert found.harm.low <= found.harm.value <= found.harm.high
    assert found.summary()["harm"] == found.harm.value
    assert len(found.harms) == found.harm.trials
    if half_width is not None:
        assert found.half_width_reached
        assert found.harm.high - found.harm.low <= 0.2
        assert len(found.right) == outcome.unit * len(found.harms)


def test_drawn_images_meet_the_realisations_they_should(network, split):
    """Every draw is one of the answers of a fixed evaluation with as many realisations."""
    drawn = nce.evaluate(
        network, images(30), labels(30), split, nce.Dropout(0.5), half_width=0.15, realisations=5
    )
    places = drawn.sampled.places
    times = times_before(places)
    whole = predict_variants(
        network, images(30), [Variant(split, nce.Dropout(0.5))], realisations=int(times.max()) + 1
    )
    right = whole.faulty[0] == labels(30).numpy()
    assert np.array_equal(drawn.right, right[times, places])


def test_results_that_stopped_apart_are_compared_over_what_both_have(network):
    ranking = nce.rank(network, None, None, "random")
    found = [
        nce.evaluate(network, images(60), labels(60), ranking.split(share), nce.Dropout(0.6),
                     half_width=width, realisations=4)
        for share, width in ((0.2, 0.06), (1.0, 0.1))
    ]  # fmt: skip
    count = min(len(each.right) for each in found)
    assert len(found[0].right) != len(found[1].right)
    gain = found[0].minus(found[1])
    mean = found[0].right[:count].mean() - found[1].right[:count].mean()
    assert gain.value == pytest.approx(mean)
    assert gain.low < gain.value < gain.high
    fixed = nce.evaluate(network, images(60), labels(60), ranking.split(0.2), nce.Dropout(0.6))
    with pytest.raises(ValueError, match="same images and draws"):
        found[0].minus(fixed)


def test_a_bundled_network_is_known_to_three_points():
    network = nce.load_model("cnn-digits")
    test = nce.load_data("digits", "test")
    split = nce.rank(network, None, None, "random").split(0.5)
    found = nce.evaluate(
        network, test.images, test.labels, split, nce.Dropout(0.3), half_width=0.03
    )
    assert found.half_width_reached
    assert found.correct.half_width <= 0.03
    fixed = nce.evaluate(network, test.images, test.labels, split, nce.Dropout(0.3), realisations=9)
    assert found.correct.low <= fixed.correct.high
    assert fixed.correct.low <= found.correct.high


@pytest.mark.parametrize(
    "outcome", [ConfusionCosts(0.7 * (1 - np.eye(5))), ConfidentErrors(0.4), PersistentErrors(2)]
)
def test_rankings_are_compared_by_the_harm_of_their_splits(network, outcome):
    data = nce.Dataset("made", "test", images(40), labels(40))
    plan = ComparisonPlan(
        ("lrp", "random"), (nce.Dropout(0.5),), (0.5, 1.0), realisations=2, outcome=outcome
    )
    found = compare_rankings(network, data, data, plan, lambda *_: lambda _: None)
    alone = nce.evaluate(
        network, data.images, data.labels, found.rankings["random"][0].split(0.5),
        nce.Dropout(0.5), realisations=2, outcome=outcome,
    )  # fmt: skip
    (cell,) = (each for each in found.cells if (each.method, each.fraction) == ("random", 0.5))
    assert cell.correct.value == pytest.approx(1 - alone.harm.value)
    assert cell.gain.low <= cell.gain.value <= cell.gain.high
    assert found.plan.measure == "score"

"""The scoreboard of rankings: its figure of merit, its intervals, and what the command writes."""

from math import sqrt

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from small_networks import all_convolutional, images, labels

import nce_sim as nce
from nce_sim.accuracy.evaluate import predict_variants
from nce_sim.accuracy.statistics import mean_difference
from nce_sim.study.ranking_comparison import ComparisonPlan, compare_rankings

FRACTIONS = (0.25, 0.5, 1.0)


def quiet(_name, _steps):
    return lambda _done: None


@pytest.fixture(scope="module")
def network():
    return nce.Workload.from_module(all_convolutional(), torch.zeros(1, 2, 12, 12))


@pytest.fixture(scope="module")
def train():
    return nce.Dataset("made", "ranking", images(24), labels(24))


@pytest.fixture(scope="module")
def test_data(network):
    """Labels are the network's own answers for most images, so that there is something to lose."""
    inputs = images(40, seed=9)
    outputs = predict_variants(network, inputs, []).clean
    truth = torch.from_numpy(outputs.astype(np.int64))
    truth[::5] = (truth[::5] + 1) % 5
    return nce.Dataset("made", "test", inputs, truth)


@pytest.fixture(scope="module")
def plan():
    return ComparisonPlan(
        methods=("lrp", "fault-aware", "random"),
        faults=(nce.Dropout(0.3), nce.Dropout(0.9)),
        fractions=FRACTIONS,
        realisations=3,
        seed=4,
    )


@pytest.fixture(scope="module")
def result(network, train, test_data, plan):
    return compare_rankings(network, train, test_data, plan, quiet)


@given(
    st.lists(st.floats(0.01, 1.0), min_size=1, max_size=6, unique=True).map(sorted),
    st.floats(-1, 1),
)
def test_the_weights_integrate_straight_lines_exactly(fractions, slope):
    """Of a loss that grows in proportion, the area by the width is half of the largest loss."""
    plan = ComparisonPlan(("lrp", "random"), (nce.Dropout(0.5),), tuple(fractions))
    losses = slope * np.array(fractions)
    assert plan.weights @ losses == pytest.approx(losses[-1] / 2)


def test_the_figure_of_merit_is_the_area_between_the_curve_and_fault_free(result, test_data):
    """A second computation from the cells alone, by NumPy's trapezoid."""
    fault_free = result.fault_free.value
    for score in result.scores:
        curve = [
            cell.correct.value
            for cell in result.cells
            if (cell.fault, cell.method) == (score.fault, score.method)
        ]
        lost = fault_free - np.array([fault_free, *curve])
        area = np.trapezoid(lost, np.array((0.0, *FRACTIONS))) / FRACTIONS[-1]
        assert score.lost.value == pytest.approx(area)


def test_cells_are_what_evaluate_says_of_the_same_split(network, test_data, result, plan):
    cell = result.cells[1]
    ranking = result.rankings[cell.method][0]
    alone = nce.evaluate(
        network, test_data.images, test_data.labels, ranking.split(cell.fraction),
        cell.fault, realisations=plan.realisations, seed=plan.seed,
    )  # fmt: skip
    assert cell.correct == alone.correct


def test_gains_are_paired_and_the_references_own_is_none(result):
    for cell in result.cells:
        if cell.method == "lrp":
            assert cell.gain is None
            continue
        (reference,) = (
            each for each in result.cells
            if (each.fault, each.fraction, each.method) == (cell.fault, cell.fraction, "lrp")
        )  # fmt: skip
        assert cell.gain.value == pytest.approx(cell.correct.value - reference.correct.value)
        assert cell.gain.low <= cell.gain.value <= cell.gain.high
        if cell.fraction == 1:
            assert cell.gain.value == 0  # nothing is left to choose


def test_scores_gain_by_the_difference_of_their_losses(result):
    for fault in result.plan.faults:
        lost = {score.method: score.lost.value for score in result.of(fault)}
        for score in result.of(fault):
            if score.gain is not None:
                assert score.gain.value == pytest.approx(lost["lrp"] - lost[score.method])
        assert list(lost.values()) == sorted(lost.values())


def test_one_fault_aware_ranking_serves_all_levels_of_a_fault(result):
    first, second = result.rankings["fault-aware"]
    assert first is second
    assert first.origin.fault == "dropout p = 0.3"


def test_all_intervals_together_miss_as_rarely_as_stated():
    """Of 1,000 campaigns without any difference, at most 5 % may have an interval off 0.

    p = 0.001 by the normal approximation of the binomial.
    """
    random = np.random.default_rng(5)
    campaigns, intervals, trials = 1000, 12, 200
    missed = 0
    for _ in range(campaigns):
        values = random.integers(-1, 2, (intervals, trials)).astype(float)
        ends = [mean_difference(each, 1 - 0.05 / intervals) for each in values]
        missed += any(end.low > 0 or end.high < 0 for end in ends)
    limit = 0.05 + norm.ppf(0.999) * sqrt(0.05 * 0.95 / campaigns)
    assert missed / campaigns < limit


def test_a_mean_of_one_difference_is_refused():
    with pytest.raises(ValueError, match="fewer than two"):
        mean_difference(np.zeros(1))


def test_a_saved_ranking_competes_under_its_own_name(network, train, test_data):
    own = nce.rank(network, train.images, train.labels, "activation")
    plan = ComparisonPlan(
        ("lrp", "mine"), (nce.Dropout(0.5),), (0.5,), saved={"mine": own}, reference="mine"
    )
    result = compare_rankings(network, train, test_data, plan, quiet)
    assert result.rankings["mine"] == (own,)
    assert [cell.gain is None for cell in result.cells] == [False, True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ("lrp", "nonsense")}, "unknown ranking method 'nonsense'"),
        ({"methods": ("lrp", "lrp")}, "each once"),
        ({"methods": ("lrp",)}, "at least two"),
        ({"reference": "gradient"}, "the reference is 'gradient'"),
        ({"faults": ()}, "at least one fault"),
        ({"fractions": (0.5, 0.2)}, "must rise"),
        ({"fractions": (0.0,)}, "above 0"),
        ({"fractions": (0.5, 1.5)}, "from 0 to 1"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(change, message):
    usual = {"methods": ("lrp", "random"), "faults": (nce.Dropout(0.5),), "fractions": (0.5,)}
    with pytest.raises(nce.InputError, match=message):
        ComparisonPlan(**{**usual, **change})

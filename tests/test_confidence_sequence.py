"""Betting confidence sequences: a slow twin, coverage under peeking, and what they cost."""

from functools import cache
from itertools import pairwise
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

import nce_sim as nce
from nce_sim.accuracy.confidence_sequence import (
    PRIOR,
    STAKE,
    ConfidenceSequence,
    bounded_mean,
    estimate_at,
    looks,
)
from nce_sim.accuracy.statistics import planned_size

CAMPAIGNS = 1000
WIDE = 0.12
"""Half-width of campaigns that only test coverage: few draws."""


def sampled(values, half_width, controls=None, control_mean=None):
    """Draw until the interval is narrow enough; return the interval where it stopped."""
    sequence = ConfidenceSequence([half_width], control_mean=control_mean)
    start = 0
    for end in looks(len(values)):
        sequence.append(values[start:end], None if controls is None else controls[start:end])
        start = end
        if sequence.is_within(half_width):
            break
    return sequence.estimate()


def fixed_size(variance, half_width):
    """Return how many draws a test needs that knows the variance."""
    return norm.ppf(0.975) ** 2 * variance / half_width**2


def assert_covers(covered, share=0.95):
    """One-sided p > 0.001."""
    assert binom.cdf(covered, CAMPAIGNS, share) > 0.001


def binary(random, share, count):
    return (random.random(count) < share).astype(float)


def with_control(random, share, count):
    """Outcomes without and with faults: faults add harm, and seldom heal."""
    clean = binary(random, share / 2, count)
    added = (share - 0.97 * share / 2) / (1 - share / 2)
    harm = np.where(clean == 1, binary(random, 0.97, count), binary(random, added, count))
    return harm, clean


@pytest.mark.parametrize("share", [0.5, 0.2, 0.05, 0.01])
@pytest.mark.parametrize("controlled", [False, True])
def test_intervals_where_sampling_stopped_by_itself_cover(share, controlled):
    random = np.random.default_rng(int(1000 * share) + controlled)
    covered = 0
    for _ in range(CAMPAIGNS):
        harm, clean = with_control(random, share, 400)
        control = (clean, share / 2) if controlled else ()
        mean = sampled(harm, WIDE, *control)
        covered += mean.low <= share <= mean.high
        assert mean.high - mean.low <= 2 * WIDE
    assert_covers(covered)


def test_intervals_of_harms_between_0_and_1_cover():
    random = np.random.default_rng(3)
    covered = 0
    for _ in range(CAMPAIGNS):
        harm = random.beta(0.3, 1.2, 300)
        mean = sampled(harm, WIDE)
        covered += mean.low <= 0.2 <= mean.high
    assert_covers(covered)


@pytest.mark.parametrize("share", [0.5, 0.03])
def test_the_truth_is_never_excluded_at_any_look(share):
    """Peek at every look, and stop as soon as the truth is excluded: at most 5 % may."""
    random = np.random.default_rng(11)
    threshold = log(2 / 0.05)
    ends = looks(400)
    excluded = 0
    for _ in range(CAMPAIGNS):
        harm, clean = with_control(random, share, 400)
        sequence = ConfidenceSequence([WIDE], control_mean=share / 2)
        for start, end in zip([0, *ends], ends, strict=False):
            sequence.append(harm[start:end], clean[start:end])
            book = sequence._all_bets()
            if max(book.log_capital_above(share), book.log_capital_below(share)) >= threshold:
                excluded += 1
                break
    assert_covers(CAMPAIGNS - excluded)


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
def test_intervals_at_a_fixed_number_of_draws_cover(share):
    random = np.random.default_rng(4)
    harms = [0.5 * binary(random, share, 400) + 0.5 * binary(random, share, 400)
             for _ in range(CAMPAIGNS)]  # fmt: skip
    ends = [bounded_mean(harm) for harm in harms]
    assert_covers(sum(end.low <= share <= end.high for end in ends))
    assert all(0 <= end.low <= end.value <= end.high <= 1 for end in ends)


def test_draws_of_unequal_means_are_covered_on_average():
    random = np.random.default_rng(5)
    means = np.linspace(0, 0.6, 300)
    ends = [bounded_mean((random.random(300) < means).astype(float)) for _ in range(CAMPAIGNS)]
    assert_covers(sum(end.low <= 0.3 <= end.high for end in ends))


def test_intervals_at_a_fixed_number_of_draws_are_nearly_as_short_as_wald():
    """About ln(2 / alpha) for the square of the quantile, and ln 16 for bets of 16 sizes."""
    random = np.random.default_rng(6)
    harm = random.beta(2, 6, 5000)
    mean = bounded_mean(harm)
    wald = norm.ppf(0.975) * harm.std() / 5000**0.5
    assert (mean.high - mean.low) / 2 < 1.8 * wald


@cache
def draws_at_a_point(share, campaigns=5):
    """Return the numbers of draws at which sampling to +-1 point stops."""
    random = np.random.default_rng(7)
    found = [sampled(binary(random, share, 25_000), 0.01).trials for _ in range(campaigns)]
    return np.array(found)


@pytest.mark.parametrize("share", [0.5, 0.2, 0.1, 0.05, 0.03, 0.027])
def test_a_point_costs_at_most_two_and_a_half_times_a_fixed_size(share):
    fixed = fixed_size(share * (1 - share), 0.01)
    assert fixed > 1000
    draws = draws_at_a_point(share)
    assert draws.mean() < 2.5 * fixed
    assert draws.max() <= 20_000


def test_known_outcomes_without_faults_save_draws():
    random = np.random.default_rng(8)
    harm, clean = with_control(random, 0.2, 25_000)
    assert sampled(harm, 0.01, clean, 0.1).trials < 0.75 * sampled(harm, 0.01).trials


def slow_capitals(values, controls, half_width, control_mean, mean):
    """Bet draw by draw, with the variance and skew of earlier blocks by their definitions."""
    up = down = 1.0
    adjusted = []
    ends = looks(len(values))
    for start, end in zip([0, *ends], ends, strict=False):
        x, c, y = values[:start], controls[:start], np.array(adjusted)
        beta, squares, cubes = 0.0, 0.0, 0.0
        if start:
            slope = ((c - c.mean()) * (x - x.mean())).sum()
            beta = min(1, max(0, slope / (((c - c.mean()) ** 2).sum() + PRIOR / 4)))
            squares, cubes = ((y - y.mean()) ** 2).sum(), ((y - y.mean()) ** 3).sum()
        skew = cubes / (squares + PRIOR / 4)
        variance = (squares + PRIOR / 4) / (start + PRIOR)
        low, high = -beta * (1 - control_mean), 1 + beta * control_mean
        for draw, control in zip(values[start:end], controls[start:end], strict=True):
            one = draw - beta * (control - control_mean)
            adjusted.append(one)
            bets = [
                half_width / max(variance - sign * half_width * skew - half_width**2, variance / 4)
                for sign in (1, -1)
            ]
            up *= 1 + min(bets[0], STAKE / (mean - low)) * (one - mean)
            down *= 1 + min(bets[1], STAKE / (high - mean)) * (mean - one)
    return log(up), log(down)


@given(st.integers(0, 2**32), st.floats(0.02, 0.98), st.floats(0.01, 0.2))
@settings(max_examples=20, deadline=None)
def test_capitals_are_those_of_a_gambler_who_bets_draw_by_draw(seed, mean, half_width):
    random = np.random.default_rng(seed)
    controls = random.random(150).round(1)
    values = np.clip(controls + random.normal(0, 0.3, 150), 0, 1).round(1)
    sequence = ConfidenceSequence([half_width], control_mean=0.5)
    ends = looks(150)
    for start, end in zip([0, *ends], ends, strict=False):
        sequence.append(values[start:end], controls[start:end])
    book = sequence._all_bets()
    fast = book.log_capital_above(mean), book.log_capital_below(mean)
    assert fast == pytest.approx(slow_capitals(values, controls, half_width, 0.5, mean), abs=1e-9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0.01, 0.4))
@settings(max_examples=40, deadline=None)
def test_being_within_a_width_is_what_the_ends_say(values, half_width):
    sequence = ConfidenceSequence([half_width])
    sequence.append(np.array(values))
    mean = sequence.estimate()
    assert 0 <= mean.low <= mean.high <= 1
    length = mean.high - mean.low
    if abs(length - 2 * half_width) > 1e-6:
        assert sequence.is_within(half_width) == (length < 2 * half_width)


def test_paired_differences_of_sampled_results_cover():
    """Two variants share half of their harm; the shorter of both prefixes is compared."""
    random = np.random.default_rng(9)
    covered = 0
    for _ in range(CAMPAIGNS):
        shared = binary(random, 0.1, 120)
        first = np.maximum(shared, binary(random, 0.05, 120))
        second = np.maximum(shared, binary(random, 0.15, 120))
        stops = [sampled(each, 0.2).trials for each in (first, second)]
        count = min(stops)
        mean = estimate_at(count, second[:count] - first[:count], [0.2, 0.1], 0.95, -1.0)
        covered += mean.low <= 0.9 * 0.1 <= mean.high
    assert_covers(covered)


def test_looks_are_fixed_beforehand_and_close_together():
    points = looks(20_000)
    assert points[:3] == [16, 32, 48]
    assert points[-1] == 20_000
    late = [point for point in points if point > 800]
    assert max(b / a for a, b in pairwise(late)) <= 1.02


def test_leveugles_number_of_faults():
    """Table of the paper: 95 %, e = 1 %, p = 0.5 of a very large population is 9,604 faults."""
    assert planned_size(10**12, 0.01) == 9604
    assert planned_size(1000, 0.01) == 906
    assert planned_size(10**12, 0.05, confidence=0.99) == 664
    for wrong in ((0, 0.1), (10, 0.0), (10, 0.1, 1.0)):
        with pytest.raises(nce.InputError, match="must be"):
            planned_size(*wrong)

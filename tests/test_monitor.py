"""The monitor: unbiased, honest about what it does not know, and as late as its window is long."""

from math import ceil

import numpy as np
import pytest
from hardware import examples
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from nce_sim.accuracy.statistics import clopper_pearson
from nce_sim.errors import InputError
from nce_sim.runtime.answers import Answer
from nce_sim.runtime.checks import Checks
from nce_sim.runtime.monitor import Lag, Monitor, lag_after_step

CAMPAIGNS = 2000

counts = st.lists(
    st.integers(0, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), max_size=40
)


def seen(checked, mismatches):
    return Answer(True, True, checked, int(mismatches))


def feed(monitor, answers, point=0):
    for checked, mismatches in answers:
        monitor.observe(seen(checked, mismatches), point)
    return monitor.estimate()


def slow_window(answers, window):
    """The last answers with checks, as few as hold the window's number of checks."""
    kept = []
    for each in reversed([each for each in answers if each[0]]):
        if sum(checked for checked, _ in kept) >= window:
            break
        kept.append(each)
    return sum(each[0] for each in kept), sum(each[1] for each in kept)


@examples(200)
@given(counts, st.integers(1, 30))
def test_the_window_holds_the_last_inferences_with_enough_checks(answers, window):
    monitor = Monitor(window)
    found = feed(monitor, answers)
    checks, mismatches = slow_window(answers, window)
    assert found.checks == checks
    if not checks:
        assert (found.value, found.low, found.high) == (0, 0, 1)
        return
    expected = clopper_pearson(mismatches, checks)
    assert (found.value, found.low, found.high) == (expected.value, expected.low, expected.high)
    assert len(monitor._counts) <= window


def campaigns(true, checks, window=400, each=20, seed=1):
    """Estimates after campaigns in a constant environment; sixty inferences each."""
    random = np.random.default_rng(seed)
    reported = random.binomial(each, checks.reported_rate(true), (CAMPAIGNS, 60))
    found = []
    for campaign in reported:
        monitor = Monitor(window, checks.false_alarm_rate, checks.missed_share)
        found.append(feed(monitor, [(each, count) for count in campaign]))
    return found


ERRORS = [Checks(1.0), Checks(1.0, 0.0, 0.2), Checks(1.0, 0.05, 0.1)]


@pytest.mark.parametrize(
    ("checks", "true"),
    [
        (ERRORS[0], 0.0005),
        (ERRORS[0], 0.02),
        (ERRORS[1], 0.0005),
        (ERRORS[1], 0.3),
        (ERRORS[2], 0.3),
    ],
)
def test_the_estimate_is_unbiased_where_it_is_not_cut(checks, true):
    """The mean over 2,000 campaigns; two-sided p > 1e-3 each."""
    values = np.array([each.value for each in campaigns(true, checks)])
    reported = checks.reported_rate(true)
    slope = 1 - checks.false_alarm_rate - checks.missed_share
    error = (reported * (1 - reported) / 400) ** 0.5 / slope / CAMPAIGNS**0.5
    assert 2 * norm.sf(abs(values.mean() - true) / error) > 1e-3


@pytest.mark.parametrize("checks", ERRORS)
@pytest.mark.parametrize("true", [0.0, 0.0005, 0.02, 0.3])
def test_the_interval_covers(checks, true):
    """Of 2,000 campaigns at most 5 % miss (one-sided p > 1e-3), many of them without a mismatch."""
    found = campaigns(true, checks, seed=2)
    misses = sum(not each.low <= true <= each.high for each in found)
    assert binomtest(misses, CAMPAIGNS, 0.05, alternative="greater").pvalue > 1e-3
    assert all(0 <= each.low <= each.value <= each.high <= 1 for each in found)
    if true < 0.001 and not checks.false_alarm_rate:
        assert sum(each.value == 0 for each in found) > CAMPAIGNS / 2


def test_without_a_mismatch_the_interval_ends_where_so_few_would_surprise():
    found = feed(Monitor(100), [(10, 0)] * 10)
    assert (found.value, found.low) == (0, 0)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 100))


def test_fewer_reports_than_false_alarms_are_no_negative_rate():
    found = feed(Monitor(100, false_alarm_rate=0.2), [(10, 0)] * 10)
    assert (found.value, found.low, found.high) == (0, 0, 0)
    assert feed(Monitor(10, missed_share=0.5), [(10, 10)]).value == 1


@examples(60)
@given(counts, counts, st.integers(1, 30))
def test_a_new_split_empties_the_window(before, after, window):
    monitor = Monitor(window)
    feed(monitor, before, point=1)
    feed(monitor, [(0, 0)], point=2)
    assert monitor.estimate().checks == 0
    found = feed(monitor, after, point=2)
    assert found == feed(Monitor(window), [(0, 0), *after], point=2)


def test_memory_does_not_grow():
    monitor = Monitor(50)
    feed(monitor, [(1, 0)] * 1000)
    assert len(monitor._counts) == 50


def step(monitor, checked, low, high, latency=1000):
    """A window full of the old counts, then the new ones for ever."""
    feed(monitor, [(checked, low)] * 200)
    return ((latency * number, seen(checked, high)) for number in range(1, 10_000))


@pytest.mark.parametrize(("inferences", "low", "high"), [(10, 4, 6), (21, 5, 6), (40, 6, 5)])
def test_half_of_a_step_is_covered_after_half_of_the_window(inferences, low, high):
    """A sliding window's mean moves along a line: n inferences need ceil(n / 2) for half of it."""
    monitor = Monitor(10 * inferences, confidence=1 - 1e-12)
    answers = step(monitor, 10, low, high)
    found = lag_after_step(monitor, answers, 0, low / 10, high / 10)
    late = ceil(inferences / 2)
    assert found == Lag(late, 1000 * late, excludes=False, half=True)


def test_a_large_step_is_seen_as_soon_as_the_interval_excludes_the_old_rate():
    monitor = Monitor(1000)
    answers = step(monitor, 10, 0, 5)
    found = lag_after_step(monitor, answers, 0, 0.001, 0.5)
    late = next(k for k in range(1, 100) if clopper_pearson(5 * k, 1000).low > 0.001)
    assert found == Lag(late, 1000 * late, excludes=True, half=False)
    monitor = Monitor(1000)
    down = lag_after_step(monitor, step(monitor, 10, 5, 0), 0, 0.5, 0.001)
    late = next(k for k in range(1, 101) if clopper_pearson(500 - 5 * k, 1000).high < 0.5)
    assert down == Lag(late, 1000 * late, excludes=True, half=False)


def test_a_step_that_nobody_sees_has_no_lag():
    monitor = Monitor(1000)
    feed(monitor, [(10, 1)] * 200)
    assert lag_after_step(monitor, [(1, seen(10, 1))], 0, 0.1, 0.9) is None


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Monitor(0), "window_checks must be a whole number of at least 1"),
        (lambda: Monitor(10, 0.5, 0.5), "must add up to less than 1"),
        (lambda: Monitor(10, -0.1), "false_alarm_rate must be a number from 0 to 1"),
        (lambda: Monitor(10, confidence=1.0), "confidence must be above 0 and below 1"),
        (lambda: lag_after_step(Monitor(10), [], 0, 0.1, 0.1), "from one rate to another"),
    ],
)
def test_what_allows_no_estimate_is_refused(make, said):
    with pytest.raises(InputError, match=said):
        make()

"""Surfaces of accuracy: interpolation, what it is worth, and answers that are drawn from it."""

import time
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hardware import examples
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, chisquare
from small_grid import asked, calibration, grid, labels, lane_faults, network, real
from small_networks import images, one_thread

from nce_sim.errors import InputError
from nce_sim.runtime.check_cost import AddedCost, check_costs
from nce_sim.runtime.checks import Checks
from nce_sim.runtime.curves import FallingCurve, RisingCurve, shrink, stretch
from nce_sim.runtime.measure_surface import measure_surface
from nce_sim.runtime.surface import Surface, held_out_rates, log_rates
from nce_sim.runtime.surface_answers import BLOCK_REQUESTS, SurfaceAnswers

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

RATES = np.array([0.0, 1e-4, 1e-3, 1e-2])


@cache
def surface():
    return measure_surface(
        network(), grid(), images(30), labels(), lane_faults(), RATES, inferences=30,
        dead_shares=(0.0, 0.25), seed=3,
    )  # fmt: skip


def made(right, mismatches, held_right=None, held_mismatches=None, inferences=1000):
    """A surface with one split of 100 unprotected neurons and these counts."""
    right, mismatches = (np.array([[each]], np.int64) for each in (right, mismatches))
    rates = np.array([0.0, *10.0 ** np.arange(-5, right.shape[2] - 6)])
    held = held_out_rates(rates)
    held_right, held_mismatches = (
        np.zeros((1, 1, len(held)), np.int64) if each is None else np.array([[each]], np.int64)
        for each in (held_right, held_mismatches)
    )
    return Surface(
        "{}", np.array([0.5]), np.array([0.0]), rates, inferences, np.array([100]), right,
        mismatches, held, held_right, held_mismatches,
    )  # fmt: skip


# Curves

values = st.just(0.0) | st.floats(1e-6, 1e3)
rising = st.lists(values, min_size=2, max_size=6).map(sorted)


@examples(100)
@given(st.floats(0, 1e6), st.floats(1e-6, 1e3))
def test_stretching_is_undone(value, unit):
    assert shrink(stretch(value, unit), unit) == pytest.approx(value, rel=1e-9, abs=1e-12)


@examples(100)
@given(rising, st.floats(0, 2e-2))
def test_curves_pass_through_their_nodes_and_never_turn(values, rate):
    rates = np.concatenate([[0.0], np.geomspace(1e-5, 1e-2, len(values) - 1)])
    values = np.array(values)
    up, down = RisingCurve(rates, values), FallingCurve(rates, -values)
    for node, value in zip(rates.tolist(), values.tolist(), strict=True):
        assert up.at(node) == pytest.approx(value, rel=1e-9, abs=1e-9)
        assert down.at(node) == pytest.approx(-value, rel=1e-9, abs=1e-9)
    assert up.at(rate) <= up.at(1.1 * rate) + 1e-9 * values[-1]
    assert down.at(rate) + 1e-9 * values[-1] >= down.at(1.1 * rate)
    assert up.at(rate) <= values[-1] * (1 + 1e-9)


@examples(100)
@given(st.floats(1e-7, 9e-3))
def test_what_is_proportional_stays_so_and_its_inverse_is_exact(rate):
    rates = np.array([0.0, 1e-5, 1e-4, 1e-3, 1e-2])
    curve = RisingCurve(rates, 30 * rates)
    assert curve.at(rate) == pytest.approx(30 * rate)
    assert curve.rate_of(30 * rate) == pytest.approx(rate)


def test_rates_beyond_the_nodes_take_the_last_value():
    found = made([900, 800, 500], [0, 40, 4000])
    assert found.accuracy(0, 1.0) == 0.5
    assert found.rate_of(0.9, 0) == pytest.approx(1e-4)
    assert found.rate_of(0.0, 0) == 0
    nothing = made([900, 900], [0, 0])
    assert nothing.rate_of(0.1, 0) == nothing.mismatches_per_check(0, 1e-5) == 0


def test_curves_that_noise_turned_are_levelled():
    """The levelled curve is the nearest one that is monotone: means of what is out of order."""
    found = made([900, 910, 500, 520], [0, 40, 30, 4000])
    assert [found.accuracy(0, rate) for rate in found.rates] == pytest.approx(
        [0.905, 0.905, 0.51, 0.51]
    )
    differ = [found.mismatches_per_check(0, rate) for rate in found.rates]
    assert differ == pytest.approx([0, 35e-5, 35e-5, 0.04])
    assert found.rate_of(35e-5, 0) == pytest.approx(1e-5)
    assert found.measured(0, 1).value == 0.91
    assert found.measured(0, 1).low < 0.905 < found.measured(0, 1).high


def test_the_error_of_interpolation_is_that_at_rates_in_between():
    """Half of the first rate is interpolated as (0.9 + 0.7) / 2, the mean on the log axis too."""
    found = made([900, 700, 500], [0, 100, 1000], [790, 560], [50, 250])
    assert found.accuracy_error.largest == pytest.approx(0.04)
    assert found.accuracy_error.mean == pytest.approx((0.01 + 0.04) / 2)
    assert found.accuracy_error.largest_error == pytest.approx(
        (2 * 0.56 * 0.44 / 1000) ** 0.5, 0.01
    )
    expected = 100 * 10**0.5 / 250 - 1
    assert found.mismatch_error.largest == pytest.approx(expected)
    assert found.mismatch_error.largest_error == pytest.approx((2 / 250) ** 0.5)
    assert "+-" in str(found)


def test_rates_on_a_log_grid():
    rates = log_rates(1e-6, 1e-3, 2)
    assert rates == pytest.approx([0, *10.0 ** np.arange(-6, -2.9, 0.5)])
    assert held_out_rates(np.array([0.0, 1.0, 4.0])) == pytest.approx([0.5, 2.0])


# What is measured


def test_a_measured_surface_has_the_answers_of_its_nodes():
    answers = real()
    for point, dead, rate in ((2, 0, 2), (3, 1, 1), (1, 1, 0)):
        share = (0.0, 0.25)[dead]
        found = [answers.answer(apart(answers, n, point, RATES[rate], share)) for n in range(30)]
        assert surface().right[point, dead, rate] == sum(each.right for each in found)
        assert surface().mismatches[point, dead, rate] == sum(each.mismatches for each in found)


def apart(answers, request, point, rate, dead=0.0):
    """A request of a stream in which no two inferences overlap, whatever the split."""
    longest = max(each.schedule.latency_cycles for each in answers.points)
    question = asked(request, point, float(rate), dead)
    return replace(question, start_cycle=request * longest)


def test_a_measured_surface_is_right_at_rate_zero_and_falls():
    found = surface()
    assert (found.right[:, 0, 0] == 30).all()
    assert (found.mismatches[:, 0, 0] == 0).all()
    assert found.right[0].min() == 30
    assert found.right[3, 0, -1] < 30
    assert (np.diff(found.mismatches[1:, 0], axis=-1) >= 0).all()
    assert (found.mismatches[1:, 0, -1] > 0).all()
    assert (found.mismatches[1:, 1] > found.mismatches[1:, 0])[:, 0].all()
    for point in (1, 2, 3):
        accuracies = [found.accuracy(point, rate) for rate in np.geomspace(1e-5, 1e-1, 50)]
        assert accuracies == sorted(accuracies, reverse=True)
        rate = found.rate_of(found.mismatches_per_check(point, 2e-3), point)
        assert rate == pytest.approx(2e-3)
    middle = found.mismatches_per_check(3, 0.0, 0.125)
    assert middle == pytest.approx(found.mismatches_per_check(3, 0.0, 0.25) / 2)


def test_a_surface_comes_back_as_it_was_saved(tmp_path):
    place = tmp_path / "surface.npz"
    surface().save(place)
    again = Surface.load(place)
    assert again == surface()
    assert len({again, surface()}) == 1
    assert again.identity == surface().identity != made([9, 8], [0, 1]).identity
    again.save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == place.read_bytes()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04broken", None])
def test_a_file_that_is_no_surface_is_refused(tmp_path, content):
    place = tmp_path / "surface.npz"
    if content is None:
        np.savez(place, rates=RATES)
    else:
        place.write_bytes(content)
    with pytest.raises(InputError, match=r"surface\.npz is no surface"):
        Surface.load(place)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: made([1100, 800], [0, 1]), "as many as its inferences at most"),
        (lambda: made([900, 800], [0, -1]), "'mismatches' are"),
        (lambda: log_rates(1e-3, 1e-5, 2), "rates rise from a lowest above 0"),
        (lambda: held_out_rates(np.array([1.0, 2.0])), "must be numbers that rise from 0"),
        (lambda: held_out_rates(np.array([0.0])), "at least one other"),
    ],
)
def test_a_surface_that_does_not_fit_is_refused(make, said):
    with pytest.raises(InputError, match=said):
        make()


def test_int8_needs_its_calibration():
    def measure(given):
        return measure_surface(
            network(), grid("int8"), images(30), labels(30, "int8"), lane_faults(), RATES[:2],
            inferences=2, calibration=given,
        )  # fmt: skip

    with pytest.raises(InputError, match="calibration"):
        measure(None)
    assert (measure(calibration()).right[:, 0, 0] == 2).all()


# Answers from a surface


def drawn(checks=None, found=None, seed=3):
    found = found or surface()
    costs = [AddedCost(7 * point, 11 * point) for point in range(len(found.fractions))]
    return SurfaceAnswers(found, lane_faults(), checks or Checks(0.5), costs, seed)


def test_answers_are_right_as_often_as_the_surface_says():
    """p > 1e-4 each."""
    answers, rate = drawn(), 3e-3
    for point in (1, 2, 3):
        right = sum(answers.answer(asked(n, point, rate)).right for n in range(5000))
        assert binomtest(right, 5000, surface().accuracy(point, rate)).pvalue > 1e-4


@pytest.mark.parametrize("checks", [Checks(0.1), Checks(0.1, 0.1, 0.3)])
def test_mismatches_are_binomial(checks):
    """p > 1e-4 for their distribution over 5,000 answers."""
    answers, rate, point = drawn(checks), 1e-2, 3
    found = [answers.answer(asked(n, point, rate)) for n in range(5000)]
    (checked,) = {each.checked for each in found}
    assert checked == real(checks=checks).points[point].sampler.checked
    chance = checks.reported_rate(surface().mismatches_per_check(point, rate))
    seen = np.bincount([each.mismatches for each in found], minlength=checked + 1)
    expected = 5000 * binom.pmf(np.arange(checked + 1), checked, chance)
    likely = expected > 5
    pooled = [np.append(each[likely], each[~likely].sum() + 1e-9) for each in (seen, expected)]
    assert chisquare(*pooled, sum_check=False).pvalue > 1e-4


def test_all_splits_and_rates_meet_the_same_numbers():
    """What is right at a rate is right at all lower ones, and with all better splits."""
    answers = drawn()
    order = sorted(range(4), key=lambda point: surface().accuracy(point, 3e-3))
    for request in range(500):
        by_rate = [answers.answer(asked(request, 3, rate)) for rate in (1e-2, 3e-3, 1e-3, 0)]
        by_split = [answers.answer(asked(request, point, 3e-3)) for point in order]
        for found in (by_rate, by_split):
            assert [each.right for each in found] == sorted(each.right for each in found)
        differ = [each.mismatches for each in by_rate]
        assert differ == sorted(differ, reverse=True)
        assert all(each.clean_right >= each.right for each in by_rate)


def test_drawn_answers_do_not_depend_on_what_was_asked_before():
    questions = [asked(n * 777, n % 4, 1e-3 * (n % 3)) for n in range(60)]
    first, second = drawn(), drawn()
    forth = [first.answer(each) for each in questions]
    assert forth == [second.answer(each) for each in reversed(questions)][::-1]
    assert forth != [drawn(seed=4).answer(each) for each in questions]
    assert questions[-1].request > 10 * BLOCK_REQUESTS


def test_drawn_answers_carry_the_cost_of_their_checks():
    found = drawn().answer(asked(5, 2))
    assert (found.extra_cycles, found.extra_energy_aj) == (14, 22)
    costs = check_costs(network(), grid(), Checks(0.5), 3)
    assert SurfaceAnswers(surface(), lane_faults(), Checks(0.5), costs).costs == costs
    with pytest.raises(InputError, match="as many costs"):
        SurfaceAnswers(surface(), lane_faults(), Checks(0.5), costs[:2])
    with pytest.raises(InputError, match="splits 0 to 3, not 4"):
        drawn().answer(asked(1, 4))


def test_the_fast_mode_is_fast():
    """100,000 answers take less than 10 s of one core, whatever the conditions do."""
    answers, began = drawn(), time.process_time()
    for request in range(100_000):
        answers.answer(asked(request, request % 4, 1e-5 * (request // 100)))
    assert time.process_time() - began < 10


def test_the_fast_mode_answers_like_the_real_one():
    """At a measured node; p > 1e-4 for right answers and for mismatches."""
    rate, point = 1e-3, 3
    answers = real(seed=8)
    found = [answers.answer(apart(answers, n, point, rate)) for n in range(150)]
    share = surface().accuracy(point, rate)
    wrong = 150 * (1 - share), 150 - sum(each.right for each in found)
    spread = (150 * share * (1 - share) * (1 + 150 / 30)) ** 0.5
    assert abs(wrong[0] - wrong[1]) < 4 * spread
    differ = sum(each.mismatches for each in found)
    expected = surface().mismatches_per_check(point, rate) * sum(each.checked for each in found)
    assert abs(differ - expected) < 4 * (expected * (1 + 150 / 30)) ** 0.5

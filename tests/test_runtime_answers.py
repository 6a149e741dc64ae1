"""Real answers at run time: faults in absolute time, checks that see them, and what these cost."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hardware import examples, fused, machine
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, poisson
from small_grid import (
    FRACTIONS,
    asked,
    calibration,
    grid,
    labels,
    lane_faults,
    network,
    real,
)
from small_networks import images, one_thread

import nce_sim as nce
from nce_sim.accuracy.latency import latencies
from nce_sim.errors import InputError
from nce_sim.faults.effects import BitFlip, Gaussian, StuckAt, Zero
from nce_sim.faults.fault_list import FaultList
from nce_sim.faults.hits import hits_of
from nce_sim.faults.mission import Mission
from nce_sim.faults.sites import Site
from nce_sim.machine.engine import run_program
from nce_sim.runtime.check_cost import check_costs
from nce_sim.runtime.checks import Checks, Sampler
from nce_sim.runtime.conditions import Conditions
from nce_sim.runtime.monitor import Monitor
from nce_sim.runtime.strikes import BLOCK_CYCLES, InferenceStrikes, LaneFaults, LaneStrikes
from nce_sim.schedule.domains import DOMAINS, PROTECTED, UNPROTECTED
from nce_sim.schedule.program import build_program

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)

RATE = 1e-3
"""Some strikes in every inference of the tiny network."""

SOMETIMES = 1e-4


def lane_strikes(effect=None, seed=1, **changes):
    return LaneStrikes(machine(**changes).config, lane_faults(effect=effect), seed)


def rows(strikes, shift=0):
    """Strikes as a set of rows, so that they can be compared."""
    change = strikes.change
    columns = (
        strikes.element, strikes.start + shift, strikes.end + shift, change.keep, change.set,
        change.flip,
    )  # fmt: skip
    return set(zip(*(column.tolist() for column in columns), strict=True))


# Strikes


@pytest.mark.parametrize("effect", [Zero(), BitFlip(2), nce.RandomValue()])
def test_strikes_of_a_lower_rate_are_among_those_of_a_higher_one(effect):
    strikes = lane_strikes(effect)
    found = [rows(strikes.between(3000, 13000, rate)) for rate in (0.0, 1e-5, 1e-4, 1.5e-4, 1e-3)]
    assert not found[0]
    assert all(few <= more for few, more in pairwise(found))
    assert len(found[1]) < len(found[2]) < len(found[4])


@examples(40)
@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from([1e-5, 1e-4, 3e-4])), max_size=6))
def test_strikes_do_not_depend_on_what_was_asked_before(earlier):
    strikes = lane_strikes()
    for block, rate in earlier:
        strikes.between(block * 900, block * 900 + 5000, rate)
    fresh = lane_strikes()
    assert rows(strikes.between(2000, 9000, 2e-4)) == rows(fresh.between(2000, 9000, 2e-4))


@examples(30)
@given(st.integers(0, 3 * BLOCK_CYCLES), st.integers(1, 9000), st.integers(1, 9000))
def test_strikes_belong_to_cycles_of_the_mission(start, first, second):
    """Those of two windows that follow on one another are those of both together."""
    strikes, middle = lane_strikes(), start + first
    apart = rows(strikes.between(start, middle, SOMETIMES), start)
    apart |= rows(strikes.between(middle, middle + second, SOMETIMES), middle)
    assert apart == rows(strikes.between(start, middle + second, SOMETIMES), start)


def test_strikes_are_a_poisson_process_over_lanes_and_cycles():
    """p > 1e-4 for the number, and for that in each of 16 lanes and of 10 tenths of the time."""
    rate, cycles = 2e-4, 200_000
    found = lane_strikes().between(0, cycles, rate)
    expected = 16 * cycles * rate
    assert 1e-4 < poisson.cdf(len(found), expected) < 1 - 1e-4
    for places, parts in ((found.element, 16), (found.start * 10 // cycles, 10)):
        counts = np.bincount(places, minlength=parts)
        assert len(counts) == parts
        spread = float(((counts - len(found) / parts) ** 2).sum() / (len(found) / parts))
        assert spread < 3 * parts


def test_a_block_that_would_have_too_many_strikes_is_refused():
    with pytest.raises(InputError, match="are expected in an inference"):
        lane_strikes().between(0, 10, 1e4)


def test_dead_lanes_nest_and_answer_zero_for_ever():
    strikes = lane_strikes()
    few, more = (strikes.dead(share) for share in (0.25, 0.5))
    assert (len(few), len(more)) == (4, 8)
    assert set(few.element.tolist()) < set(more.element.tolist())
    assert (few.start == 0).all()
    assert (few.change.of(np.full(4, 77, np.uint32)) == 0).all()
    assert not len(strikes.dead(0.0))


@pytest.mark.parametrize("kind", ["fp16", "fused"])
def test_strikes_are_the_same_whatever_the_split(kind):
    answers = real(kind)
    seen = []
    for point, each in enumerate(answers.points):
        each.strikes.begin(7000, Conditions(rate_factor=RATE))
        shortest = min(other.schedule.latency_cycles for other in answers.points)
        found = each.strikes.of(0, 0, point, again=False)
        seen.append(rows(found[found.start < shortest]))
    assert seen[0]
    assert all(each == seen[0] for each in seen)


def test_a_strike_on_a_fabric_hits_whoever_is_served_at_the_time():
    """Physical columns: both domains meet the same strikes, and each strike hits one of them."""
    point = grid("fused").points[2]
    schedule = point.run.schedule
    strikes = LaneStrikes(fused().config, lane_faults(), 1)
    assert [str(site) for site in strikes.sites] == ["protected.lane", "unprotected.lane"]
    both = InferenceStrikes(strikes, schedule)
    both.begin(0, Conditions(rate_factor=10 * RATE))
    first, second = (both.of(number, 0, 0, again=False) for number in (0, 1))
    assert rows(first) == rows(second)
    assert first.element.max() < 4 * 7
    hit = dict.fromkeys(DOMAINS, 0)
    for number in range(len(first)):
        mine = [
            len(hits_of(Site(domain, "lane"), first[[number]], schedule.executions[domain], 0))
            for domain in DOMAINS
        ]
        assert sum(mine) <= 1
        for domain, count in zip(DOMAINS, mine, strict=True):
            hit[domain] += count
    assert min(hit.values()) > 0


def test_single_strikes_on_fused_columns_are_outvoted():
    """With all neurons protected, what does not strike two copies of a sum changes no answer."""
    answers = real("fused")
    assert all(answers.answer(asked(n, 0, 1e-5)).right for n in range(30))


def test_a_split_with_more_protection_is_hit_less():
    """None is hit where nothing runs on PEs; over 60 inferences more where more does."""
    answers = real()
    hits = [
        sum(len(each.arrivals(asked(n, 0, SOMETIMES)).hits[UNPROTECTED].first) for n in range(60))
        for each in answers.points
    ]
    assert hits[0] == 0
    assert hits == sorted(hits)
    assert len(set(hits)) == len(FRACTIONS)


# Answers


@pytest.mark.parametrize("kind", ["fp16", "int8", "fused", "retries"])
def test_without_faults_every_answer_is_the_clean_one(kind):
    answers = real(kind)
    for point in range(len(FRACTIONS)):
        found = [answers.answer(asked(n, point)) for n in range(30)]
        assert all(each.right and each.clean_right for each in found)
        assert not any(each.mismatches or each.due for each in found)


def replayed(answers, kind, point, dead, requests, rate):
    """The campaign of `inject` in which each inference meets the strikes of a request."""
    each, found = answers.points[point], {}
    for request in range(requests):
        question = asked(request, point, rate, dead)
        realisation = each.strikes.begin(question.start_cycle, question.conditions)
        for fault in range(len(each.strikes.faults)):
            for again in (False, True):
                strikes = each.strikes.of(fault, realisation, request, again)
                found[fault, 0, request, again] = strikes
    mission = Mission(each.schedule, each.strikes.faults, replay=FaultList(found))
    order = [answers.image_of(request) for request in range(requests)]
    return nce.inject(
        network(), images(30)[order], labels(30, kind)[order], each.schedule, (), mission=mission,
        calibration=calibration() if kind == "int8" else None,
    )  # fmt: skip


@pytest.mark.parametrize("point", [1, 2, 3])
@pytest.mark.parametrize("kind", ["fp16", "int8", "fused"])
@pytest.mark.parametrize("dead", [0.0, 0.2])
def test_answers_are_those_of_a_campaign_with_the_same_strikes(kind, point, dead):
    """With all computations checked, mismatches are what a campaign counts as changed neurons."""
    answers = real(kind)
    found = [answers.answer(asked(n, point, RATE, dead)) for n in range(25)]
    campaign = replayed(answers, kind, point, dead, 25, RATE)
    assert [each.right for each in found] == campaign.right[0].tolist()
    assert not all(each.right for each in found)
    if kind != "fused":  # there protected lanes are struck too, which nobody checks
        assert [each.mismatches for each in found] == campaign.inferences.changed[0].tolist()
    assert any(each.mismatches for each in found)


def test_waves_that_run_again_add_what_a_simulation_of_them_says():
    answers = real("retries", faults=lane_faults(site="protected.lane"), checks=Checks(0.0))
    found = [answers.answer(asked(n, 1, 2e-4)) for n in range(25)]
    campaign = replayed(answers, "retries", 1, 0.0, 25, 2e-4)
    run = grid("retries").points[1].run
    timed = latencies(run, campaign)
    assert [each.extra_cycles for each in found] == (timed.cycles - run.latency_cycles).tolist()
    assert sum(each.extra_cycles > 0 for each in found) > 0
    spent = [run.energy.total_aj + each.extra_energy_aj for each in found]
    assert np.allclose(np.array(spent) / 1e6, timed.energy_pj, rtol=1e-12)
    assert [each.due for each in found] == campaign.due[0].tolist()


def test_answers_do_not_depend_on_what_was_asked_before():
    questions = [
        asked(n, point, rate, dead)
        for n in range(6) for point in (1, 3) for rate in (SOMETIMES, RATE) for dead in (0.0, 0.2)
    ]  # fmt: skip
    checks = Checks(0.5, 0.05, 0.1)
    first, second = real(checks=checks), real(checks=checks)
    forth = [first.answer(each) for each in questions]
    back = [second.answer(each) for each in reversed(questions)]
    assert forth == back[::-1]
    assert [first.answer(each) for each in questions] == forth
    assert forth != [real(checks=checks, seed=4).answer(each) for each in questions]


def test_a_request_shows_the_same_image_under_every_policy_and_all_images_come_in_turn():
    answers = real()
    shown = [answers.image_of(request) for request in range(60)]
    assert sorted(shown[:30]) == list(range(30))
    assert shown[30:] == shown[:30] != list(range(30))


# Checks


@pytest.mark.parametrize("share", [0.0, 0.01, 0.37, 1.0])
def test_the_number_of_checks_is_the_share_of_what_is_unprotected(share):
    for point in grid().points:
        sampler = Sampler(point.run.schedule, Checks(share), 5)
        total = point.split.unprotected_neurons
        assert sampler.checked == int(share * total + 0.5)
        chosen = sampler.sample(4).neurons
        assert sum(map(len, chosen.values())) == sampler.checked
        for name, neurons in chosen.items():
            assert len(set(neurons.tolist())) == len(neurons)
            assert point.split.unprotected[name].flat[neurons].all()


def test_more_checks_hold_those_of_fewer():
    schedule = grid().points[3].run.schedule
    few, more = (Sampler(schedule, Checks(share), 5).sample(2).neurons for share in (0.2, 0.6))
    assert all(set(few[name].tolist()) <= set(more[name].tolist()) for name in few)


def test_sampled_checks_find_their_share_of_the_mismatches():
    """Which computations are checked has nothing to do with the faults; p > 1e-4."""
    whole, sampled = real(), real(checks=Checks(0.25))
    every = [whole.answer(asked(n, 3, RATE)) for n in range(100)]
    some = [sampled.answer(asked(n, 3, RATE)) for n in range(100)]
    assert [each.right for each in every] == [each.right for each in some]
    share = some[0].checked / every[0].checked
    total = sum(each.mismatches for each in every)
    assert total > 60
    assert binomtest(sum(each.mismatches for each in some), total, share).pvalue > 1e-4


def test_the_monitor_covers_what_real_inferences_show():
    """100 campaigns of 8 inferences: intervals miss the mean of all in 5 % at most (p > 1e-3)."""
    answers, found, counts = real(checks=Checks(0.5)), [], np.zeros(2, np.int64)
    for campaign in range(100):
        monitor = Monitor(10_000)
        for request in range(8 * campaign, 8 * campaign + 8):
            answer = answers.answer(asked(request, 3, 3 * SOMETIMES))
            monitor.observe(answer, 3)
            counts += answer.mismatches, answer.checked
        found.append(monitor.estimate())
    true = counts[0] / counts[1]
    assert np.mean([each.value for each in found]) == pytest.approx(true)
    assert sum(each.value == 0 for each in found) > 0
    misses = sum(not each.low <= true <= each.high for each in found)
    assert binomtest(misses, 100, 0.05, alternative="greater").pvalue > 1e-3


def test_checks_err_as_often_as_they_say():
    """p > 1e-4 for false alarms without faults, and for mismatches that go unreported."""
    alarms = real(checks=Checks(1.0, false_alarm_rate=0.1))
    quiet = [alarms.answer(asked(n, 3)) for n in range(100)]
    checked = sum(each.checked for each in quiet)
    assert binomtest(sum(each.mismatches for each in quiet), checked, 0.1).pvalue > 1e-4
    true, seen = real(), real(checks=Checks(1.0, missed_share=0.3))
    found = [
        [each.answer(asked(n, 3, RATE)).mismatches for n in range(100)] for each in (true, seen)
    ]
    assert all(few <= all_of for all_of, few in zip(*found, strict=True))
    assert binomtest(sum(found[1]), sum(found[0]), 0.7).pvalue > 1e-4


@pytest.mark.parametrize("kind", ["fp16", "fused"])
def test_checks_cost_cycles_and_energy_and_every_answer_has_them(kind):
    costs = [check_costs(network(), grid(kind), Checks(share), 3) for share in (0.0, 0.2, 1.0)]
    assert all(each.cycles == each.energy_aj == 0 for each in costs[0])
    for point in range(1, len(FRACTIONS)):
        energies = [of_share[point].energy_aj for of_share in costs]
        assert energies == sorted(energies)
        assert energies[0] < energies[1]
        assert costs[2][point].cycles > 0
    answers = real(kind, checks=Checks(0.2))
    assert answers.answer(asked(1, 2)).extra_cycles == costs[1][2].cycles
    assert answers.answer(asked(1, 2)).extra_energy_aj == costs[1][2].energy_aj


def test_duplicates_compute_what_they_check_on_protected_lanes():
    """Everything is checked: the protected array does all unprotected MACs once more."""
    point = grid().points[2]
    masks = point.split.unprotected
    program = build_program(network().layers, point.run.machine.config, masks, checked=masks)
    twice = run_program(point.run.machine, program)
    plain = point.run.counts.domains
    macs = twice.counts.domains[PROTECTED].useful_macs
    assert macs == plain[PROTECTED].useful_macs + plain[UNPROTECTED].useful_macs
    assert twice.counts.domains[UNPROTECTED].useful_macs == plain[UNPROTECTED].useful_macs
    assert twice.counts.spilled_bytes == point.run.counts.spilled_bytes


# What is refused


def test_a_rate_may_be_a_function_of_the_conditions():
    def rate(conditions):
        return 2e-4 if conditions.supply_v == 0.6 else conditions.rate_factor

    faults = replace(lane_faults(), rate=rate)
    assert faults.rate_per_cycle(Conditions(supply_v=0.6)) == 2e-4
    assert replace(faults, rate=3e-5).rate_per_cycle(Conditions(rate_factor=2.0)) == 6e-5
    with pytest.raises(InputError, match="the rate under"):
        faults.rate_per_cycle(Conditions(rate_factor=float("nan")))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: LaneFaults(Site.parse("bus"), BitFlip()), "take a site such as"),
        (lambda: LaneFaults(Site.parse("unprotected.memory"), BitFlip()), "strike arrays of lanes"),
        (lambda: lane_faults(effect=StuckAt()), "cannot have the effect 'stuck'"),
        (lambda: lane_faults(rate=-1.0), "LaneFaults: rate must be a number of at least 0"),
        (lambda: Checks(1.2), "Checks: share must be a number from 0 to 1"),
        (lambda: Checks(0.1, 0.5, 0.5), "must add up to less than 1"),
        (lambda: real().answer(asked(0, 4)), "the grid has points 0 to 3, not 4"),
        (lambda: real(faults=lane_faults(site="unprotected.voter")), "neither voter nor"),
        (lambda: real(faults=lane_faults(site="unprotected.output", effect=Gaussian(1.0, {}))),
         "mean_activation"),
        (lambda: real().answer(asked(0, 1, dead=1.5)), "share"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(make, said):
    with pytest.raises(InputError, match=said):
        make()


def test_nothing_global_is_touched():
    before = torch.get_rng_state()
    real().answer(asked(0, 3, RATE))
    assert torch.equal(before, torch.get_rng_state())

"""Requests at one engine that changes between inferences: nothing is lost, all adds up."""

import tracemalloc
from dataclasses import dataclass, replace
from itertools import accumulate
from math import ceil

import numpy as np
import pytest
from hardware import examples
from hypothesis import given
from hypothesis import strategies as st
from runtime_parts import Choosing, Counting, Steps, Telling, small_grid

from nce_sim.errors import InputError
from nce_sim.machine.serving import Callbacks, Queued, serve
from nce_sim.runtime.answers import Answer, Asked
from nce_sim.runtime.bins import MOST_BINS, Binned
from nce_sim.runtime.conditions import Conditions
from nce_sim.runtime.latency_counts import LatencyCounts
from nce_sim.runtime.mission import COUNTS, ESTIMATE_UNIT, Goals, MissionResult, run_mission
from nce_sim.runtime.observations import Observation
from nce_sim.runtime.sliding import SlidingAccuracy

GAPS = st.lists(st.integers(0, 6000), min_size=1, max_size=40)


@dataclass
class Log:
    """Callbacks that write down what they are told; services and changes by request."""

    services: list[int]
    changes: list[int]

    def __post_init__(self):
        self.begun, self.ended, self.idle = [], [], []

    def callbacks(self) -> Callbacks:
        def begin(request: int, arrival: int, now: int) -> int:
            self.begun.append((request, arrival, now))
            return self.services[request]

        def end(request: int, arrival: int, now: int, waiting: Queued) -> int:
            self.ended.append((request, arrival, now, waiting))
            return self.changes[request]

        return Callbacks(begin, end, lambda start, end: self.idle.append((start, end)))


def lindley(arrivals: list[int], services: list[int], changes: list[int]) -> list[tuple[int, int]]:
    """Return (start, end) of each request: it starts when it is there and the engine is free."""
    found, free = [], 0
    for arrival, service, change in zip(arrivals, services, changes, strict=True):
        start = max(arrival, free)
        found.append((start, start + service))
        free = start + service + change
    return found


@given(gaps=GAPS, data=st.data())
@examples(60)
def test_requests_are_served_in_order_and_the_times_add_up(gaps, data):
    arrivals, count = list(accumulate(gaps)), len(gaps)
    draw = st.lists(st.integers(1, 3000), min_size=count, max_size=count)
    services = data.draw(draw)
    changes = data.draw(st.lists(st.integers(0, 2000), min_size=count, max_size=count))
    log = Log(services, changes)
    last = serve(enumerate(arrivals), log.callbacks())
    expected = lindley(arrivals, services, changes)
    assert log.begun == [(k, arrivals[k], expected[k][0]) for k in range(count)]
    assert [each[:3] for each in log.ended] == [
        (k, arrivals[k], expected[k][1]) for k in range(count)
    ]
    for k, (_, _, now, waiting) in enumerate(log.ended):
        there = [arrival for arrival in arrivals[k + 1 :] if arrival <= now]
        assert waiting == Queued(len(there), min(there, default=None))
    assert last == expected[-1][1] + changes[-1]
    assert sum(services) + sum(changes) + sum(end - start for start, end in log.idle) == last


def test_no_arrivals_take_no_time_and_arrivals_are_drawn_as_time_goes_on():
    log = Log([], [])
    assert serve(iter(()), log.callbacks()) == 0
    drawn = []

    def arrivals():
        for k in range(100):
            drawn.append(k)
            yield k, 100 * k

    log = Log([60] * 100, [0] * 100)
    ahead = []
    callbacks = log.callbacks()

    def begin(request: int, arrival: int, now: int) -> int:
        ahead.append(len(drawn) - request)
        return 60

    serve(arrivals(), replace(callbacks, begin=begin))
    assert max(ahead) <= 2


def test_arrivals_out_of_order_are_refused():
    with pytest.raises(InputError, match=r"request 1 arrives in cycle 4, after one of cycle 9"):
        serve(iter([(0, 9), (1, 4)]), Log([1, 1], [0, 0]).callbacks())


def test_the_mean_wait_is_that_of_pollaczek_and_khinchine():
    """M/D/1 at a load of 0.6: rho S / (2 (1 - rho)) = 750 cycles.

    The waits are cut into 20 batches of 3,000, whose means are nearly independent; a right program
    fails with probability 0.001 over seeds (Student's t, 19 degrees of freedom).
    """
    service, load, count, batches = 1000, 0.6, 60_000, 20
    gaps = np.random.default_rng(7).exponential(service / load, count)
    waits = np.zeros(count)

    def begin(request: int, arrival: int, now: int) -> int:
        waits[request] = now - arrival
        return service

    callbacks = Callbacks(begin, lambda *_: 0, lambda *_: None)
    serve(enumerate(np.cumsum(gaps).astype(int).tolist()), callbacks)
    means = waits.reshape(batches, -1).mean(axis=1)
    error = means.std(ddof=1) / batches**0.5
    assert abs(means.mean() - load * service / (2 * (1 - load))) < 3.883 * error
    assert error < 0.05 * 750


# --- missions ------------------------------------------------------------------------------------

WARM = Steps(
    (
        (0.0, Conditions(temperature_c=60.0)),
        (3e-4, Conditions(temperature_c=80.0, supply_v=0.7, power_budget_mw=1.0)),
    )
)


def answered(asked: Asked) -> Answer:
    """Answer by the request's number alone, in a way that looks like chance."""
    mixed = asked.request * 2_654_435_761 % 2**32
    extra = mixed % 3 * 50
    return Answer(
        right=mixed % 5 != 0, clean_right=True, checked=20, mismatches=mixed % 4,
        extra_cycles=extra, extra_energy_aj=extra * 10_000, due=mixed % 7 == 0,
    )  # fmt: skip


def fly(
    arrivals: list[int], choices: list[int], goals: Goals, keep_answers: bool = True
) -> tuple[MissionResult, Telling, list[Observation]]:
    """Run a mission whose policy takes the choices in turn."""
    seen: list[Observation] = []

    def choose(observation: Observation) -> int:
        seen.append(observation)
        return choices[(len(seen) - 1) % len(choices)]

    answering = Telling(answered)
    result = run_mission(
        small_grid(), WARM, enumerate(arrivals), answering, Counting(), Choosing(choose), goals,
        keep_answers=keep_answers,
    )  # fmt: skip
    return result, answering, seen


@given(gaps=GAPS, choices=st.lists(st.integers(0, 3), min_size=1, max_size=40))
@examples(40)
def test_policies_that_switch_at_will_lose_no_request_and_no_energy(gaps, choices):
    arrivals, grid = list(accumulate(gaps)), small_grid()
    goals = Goals(0.8, deadline_cycles=4000, window_requests=5)
    result, answering, seen = fly(arrivals, choices, goals)
    assert [asked.request for asked in answering.asked] == list(range(len(arrivals)))

    # The same mission, written down request by request.
    free = point = requests_aj = changes_aj = idle_aj = busy = changing = 0
    rights, ends, latencies = [], [], []

    def where(cycle: int) -> tuple[float | None, float | None]:
        here = WARM.at(cycle / 1e8)
        return here.temperature_c, here.supply_v

    for k, arrival in enumerate(arrivals):
        start = max(arrival, free)
        idle_aj += (start - free) * grid.meter.rates(*where(free)).idle_aj_per_cycle
        answer = answered(answering.asked[k])
        assert answering.asked[k] == Asked(k, start, point, WARM.at(start / 1e8))
        cycles = grid.points[point].cycles + answer.extra_cycles
        requests_aj += grid.points[point].energy_aj(
            *where(start), extra_cycles=answer.extra_cycles, extra_energy_aj=answer.extra_energy_aj
        )
        end = start + cycles
        rights.append(answer.right)
        ends.append(end)
        latencies.append(end - arrival)
        oldest = arrivals[k + 1] if k + 1 < len(arrivals) and arrivals[k + 1] <= end else None
        assert seen[k].slack_cycles == (None if oldest is None else oldest + 4000 - end)
        assert (seen[k].cycle, seen[k].point) == (end, point)
        assert seen[k].queue == sum(later <= end for later in arrivals[k + 1 :])
        assert seen[k].power_budget_mw == WARM.at(end / 1e8).power_budget_mw
        chosen = choices[k % len(choices)]
        changes_aj += grid.change_aj(point, chosen, *where(end))
        change = grid.change_cycles(point, chosen)
        busy, changing = busy + cycles, changing + change
        free, point = end + change, chosen

    spent = result.spent
    assert (spent.requests_aj, spent.idle_aj, spent.changes_aj) == (
        requests_aj, idle_aj, changes_aj
    )  # fmt: skip
    assert (spent.busy_cycles, spent.changing_cycles) == (busy, changing)
    assert spent.total_cycles == result.end_cycle == free
    assert spent.total_aj == requests_aj + idle_aj + changes_aj
    assert result.counts["right"] == sum(rights)
    assert result.counts["missed"] == sum(latency > 4000 for latency in latencies)
    assert result.latencies.most == max(latencies)
    assert result.latencies.sum == sum(latencies)
    assert sum(result.served.values()) == len(arrivals)
    assert result.answers.tolist() == rights
    windows = [sum(rights[k : k + 5]) for k in range(len(rights) - 4)] or [sum(rights)]
    assert result.counts["windows"] == max(0, len(rights) - 4)
    assert result.counts["window_right"] == sum(windows[: result.counts["windows"]])
    worst = result.worst_window
    assert (worst.right, worst.first) == (min(windows), windows.index(min(windows)))
    below = [len(rights[:k]) >= 5 and sum(rights[k - 5 : k]) < 4 for k in range(1, len(rights) + 1)]
    lengths = np.diff([*ends, result.end_cycle])
    assert result.below_target_cycles == sum(lengths[np.array(below)])


@given(gaps=GAPS, choices=st.lists(st.integers(0, 3), min_size=1, max_size=40))
@examples(15)
def test_bins_add_up_to_the_totals(gaps, choices):
    arrivals = list(accumulate(gaps))
    result, _, seen = fly(arrivals, choices, Goals(0.8, 4000, 5))
    sums = {name: column.sum() for name, column in result.bins.sums.items()}
    assert {name: sums[name] for name in COUNTS} == dict(result.counts)
    assert sums["energy_aj"] == pytest.approx(result.spent.total_aj, rel=1e-12)
    assert sums["idle_cycles"] == result.spent.idle_cycles
    assert sums["changing_cycles"] == result.spent.changing_cycles
    assert sum(sums[f"split {k}"] for k in range(4)) == result.spent.busy_cycles
    assert sums["waiting_cycles"] == result.latencies.sum - result.spent.busy_cycles
    assert result.bins.cycles.sum() == result.end_cycle
    held = np.diff([each.cycle for each in seen] + [result.end_cycle])
    told = sum(each.estimate.value * cycles for each, cycles in zip(seen, held, strict=True))
    assert sums["estimate_cycles"] * ESTIMATE_UNIT == pytest.approx(told, rel=1e-6, abs=1e-6)
    assert len(result.changes) == result.counts["changes"]


def test_the_same_mission_twice_gives_the_same():
    arrivals = list(range(0, 300_000, 1700))
    first, second = (fly(arrivals, [0, 2, 1, 1, 3], Goals(0.8, 4000, 20))[0] for _ in range(2))
    assert first.spent == second.spent
    assert first.served == second.served
    assert first.changes == second.changes
    for name, column in first.bins.sums.items():
        assert np.array_equal(column, second.bins.sums[name])


def test_memory_does_not_grow_with_the_number_of_requests():
    def peak(count: int) -> int:
        def answer(asked: Asked) -> Answer:
            answering.asked.clear()
            return answered(asked)

        answering = Telling(answer)
        tracemalloc.start()
        run_mission(
            small_grid(), WARM, ((k, 4000 * k) for k in range(count)), answering, Counting(),
            Choosing(lambda seen: 1), Goals(0.8, 4000, 50),
        )  # fmt: skip
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(100)  # what is worked out once
    assert peak(5000) < peak(500) + 20_000


def test_wrong_choices_and_empty_missions_are_refused():
    goals = Goals(0.8, 4000, 5)
    for choice in (4, -1, 0.5, None):
        with pytest.raises(InputError, match="policy Choosing chose split"):
            fly([0, 10], [choice], goals)
    with pytest.raises(InputError, match="no request arrives"):
        fly([], [0], goals)
    with pytest.raises(InputError, match="start_point is 4: the grid has splits 0 to 3"):
        run_mission(
            small_grid(), WARM, [(0, 0)], Telling(), Counting(), Choosing(lambda seen: 0), goals,
            start_point=4,
        )  # fmt: skip
    for wrong in ((1.1, 1, 1), (float("nan"), 1, 1), (0.5, 0, 1), (0.5, 1, 0)):
        with pytest.raises(InputError):
            Goals(*wrong)


def test_power_is_the_mean_since_some_inferences_ago():
    arrivals = list(range(0, 400_000, 4000))
    result, _, seen = fly(arrivals, [2], Goals(0.8, 4000, 5))
    assert result.power_mw == pytest.approx(
        small_grid().meter.power_mw(result.spent.total_aj, result.end_cycle)
    )
    assert seen[-1].power_mw == pytest.approx(
        result.spent.total_aj / result.end_cycle * 100 * 1e-9, rel=0.2
    )


# --- their parts ---------------------------------------------------------------------------------


@given(st.lists(st.one_of(st.integers(1, 3000), st.integers(1, 2**50)), min_size=1))
@examples(50)
def test_quantiles_are_the_exact_ones_within_a_thousandth(cycles):
    found = LatencyCounts()
    for each in cycles:
        found.add(each)
    ordered = sorted(cycles)
    for share in (0.01, 0.5, 0.99, 0.9999, 1.0):
        exact = ordered[ceil(share * len(cycles)) - 1]
        assert exact <= found.quantile(share) <= exact * 1.001 * (1 + 1e-12)
    assert found.mean == pytest.approx(sum(cycles) / len(cycles))


def test_without_requests_there_is_nothing():
    assert LatencyCounts().quantile(0.5) == LatencyCounts().mean == 0
    assert SlidingAccuracy(3).worst is None


@given(st.lists(st.booleans(), min_size=1), st.integers(1, 8))
@examples(50)
def test_the_sliding_window_is_exact(answers, size):
    window = SlidingAccuracy(size)
    for number, right in enumerate(answers, 1):
        window.add(right)
        assert window.right == sum(answers[max(0, number - size) : number])
    spans = [answers[k : k + size] for k in range(max(1, len(answers) - size + 1))]
    assert window.worst.right == min(map(sum, spans))
    assert window.worst.requests == len(spans[0])


@given(
    st.lists(
        st.tuples(st.integers(0, 40_000), st.integers(1, 20_000), st.integers(0, 10**20)),
        min_size=1, max_size=12,
    )
)  # fmt: skip
@examples(50)
def test_bins_are_those_of_counting_each_cycle(events):
    binned = Binned(["events"], ["rate", "amount"], bin_cycles=1)
    end = max(start + length for start, length, _ in events)
    for start, length, amount in events:
        binned.count(start, {"events": 1})
        binned.flow("rate", start, start + length, 3)
        binned.spread("amount", start, start + length, amount)
    table = binned.table(end)
    assert table.bin_cycles & (table.bin_cycles - 1) == 0
    assert len(table.starts) <= MOST_BINS
    by_cycle = np.zeros((2, end))
    for start, length, _ in events:
        by_cycle[0, start] += 1
        by_cycle[1, start : start + length] += 3
    for name, expected in zip(("events", "rate"), by_cycle, strict=True):
        assert np.array_equal(table.sums[name], np.add.reduceat(expected, table.starts))
    assert table.sums["amount"].sum() == pytest.approx(sum(amount for *_, amount in events))

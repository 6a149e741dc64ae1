"""A whole mission of one policy: requests, answers, monitor, decisions, energy, and their sums.

All statistics are streamed: memory grows neither with the number of requests nor with the time, but
with what waits in the queue, and with the different conditions of the environment.

The conditions at the start of an inference, of a change and of an idle stretch hold for all of it:
a line of the trace that begins meanwhile counts from the next one on.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import index as whole_number

import numpy as np
from numpy.typing import NDArray

from nce_sim.errors import InputError
from nce_sim.machine.serving import Callbacks, Queued, serve
from nce_sim.runtime.answers import Answer, Answerer, Asked
from nce_sim.runtime.bins import Binned, TimeBins
from nce_sim.runtime.conditions import Conditions, Surroundings
from nce_sim.runtime.grid import Grid
from nce_sim.runtime.latency_counts import LatencyCounts
from nce_sim.runtime.metering import MW_PER_AJ_MHZ
from nce_sim.runtime.observations import Monitor, Observation, Policy
from nce_sim.runtime.sliding import SlidingAccuracy, WorstWindow

METER_REQUESTS = 64
"""The engine's power meter shows the mean since so many inferences ago."""

MOST_CHANGES = 10_000
"""Reconfigurations of which time and splits are kept; all are counted."""

COUNTS = (
    "answered", "right", "clean_right", "due", "missed", "checked", "mismatches", "changes",
    "windows", "window_right",
)  # fmt: skip
"""What a mission counts, and each bin of time: requests belong to the bin in which they end.

`windows` are full sliding windows, and `window_right` the right answers of all of them.
"""

FLOWS = ("energy_aj", "waiting_cycles", "idle_cycles", "changing_cycles", "estimate_cycles")
"""What goes on over time; `estimate_cycles` is the estimate, in parts of 2^40, times cycles."""

ESTIMATE_UNIT = 2**-40


@dataclass(frozen=True)
class Goals:
    """What a mission is held against: the share of right answers, and the latency in cycles.

    `window_requests` is the length of the sliding window. Raises InputError for values that make no
    sense.
    """

    quality_target: float
    deadline_cycles: int
    window_requests: int

    def __post_init__(self) -> None:
        if not 0 <= self.quality_target <= 1:
            raise InputError(f"quality_target is an accuracy, 0 to 1, not {self.quality_target}")
        for name in ("deadline_cycles", "window_requests"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")


@dataclass(frozen=True)
class Spent:
    """Energy in whole attojoules, and time in cycles; nothing else costs either."""

    requests_aj: int
    idle_aj: int
    changes_aj: int
    busy_cycles: int
    idle_cycles: int
    changing_cycles: int

    @property
    def total_aj(self) -> int:
        """All energy."""
        return self.requests_aj + self.idle_aj + self.changes_aj

    @property
    def total_cycles(self) -> int:
        """All time."""
        return self.busy_cycles + self.idle_cycles + self.changing_cycles


@dataclass(frozen=True)
class Change:
    """A reconfiguration: when it began, and the splits."""

    cycle: int
    before: int
    after: int


@dataclass(frozen=True)
class MissionResult:
    """What came of a mission under one policy.

    `counts` are those of COUNTS. `served` has the number of requests by split and conditions.
    `below_target_cycles` is the time in which the sliding window, once full, was below the quality
    target. `changes` are the first MOST_CHANGES ones. Columns of `bins` are COUNTS, FLOWS and
    "split 0", "split 1", ...: busy cycles in each split. `answers` tells, if asked for, whether
    each answer was right, in order of the requests: one byte each.
    """

    clock_mhz: float
    end_cycle: int
    counts: Mapping[str, int]
    spent: Spent
    latencies: LatencyCounts
    served: Mapping[tuple[int, Conditions], int]
    worst_window: WorstWindow | None
    below_target_cycles: int
    changes: tuple[Change, ...]
    bins: TimeBins
    answers: NDArray[np.bool_] | None

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.counts["right"] / self.counts["answered"]

    @property
    def missed_share(self) -> float:
        """Share of the requests that were answered after their deadline."""
        return self.counts["missed"] / self.counts["answered"]

    @property
    def energy_per_request_aj(self) -> float:
        """All energy, idle time and reconfigurations included, by request."""
        return self.spent.total_aj / self.counts["answered"]

    @property
    def power_mw(self) -> float:
        """Mean power over the mission, external memory included."""
        return self.spent.total_aj / self.end_cycle * self.clock_mhz * MW_PER_AJ_MHZ

    @property
    def seconds(self) -> float:
        """Duration of the mission, up to the end of the last inference or change."""
        return self.end_cycle / (self.clock_mhz * 1e6)


def run_mission(
    grid: Grid,
    surroundings: Surroundings,
    arrivals: Iterable[tuple[int, int]],
    answerer: Answerer,
    monitor: Monitor,
    policy: Policy,
    goals: Goals,
    *,
    start_point: int = 0,
    keep_answers: bool = False,
) -> MissionResult:
    """Serve all arrivals, (request, cycle) in order of time, with a policy that chooses the split.

    The mission begins with the split `start_point`. `keep_answers` keeps a byte a request, for
    paired comparisons of policies. Raises InputError where no request arrives, where a policy asks
    for a split that the grid does not have, and for conditions that the machine does not allow.
    """
    if not 0 <= start_point < len(grid.points):
        raise InputError(
            f"start_point is {start_point}: the grid has splits 0 to {len(grid.points) - 1}"
        )
    mission = _Mission(
        grid, surroundings, answerer, monitor, policy, goals, start_point,
        bytearray() if keep_answers else None,
    )  # fmt: skip
    end_cycle = serve(arrivals, Callbacks(mission.begin, mission.end, mission.idle))
    if mission.under_way is None:
        raise InputError("no request arrives: a mission needs at least one")
    return mission.result(end_cycle)


@dataclass(frozen=True)
class _UnderWay:
    """The inference that runs, or ran last."""

    start: int
    answer: Answer
    conditions: Conditions
    energy_aj: int


@dataclass
class _Mission:
    grid: Grid
    surroundings: Surroundings
    answerer: Answerer
    monitor: Monitor
    policy: Policy
    goals: Goals
    point: int
    answers: bytearray | None
    under_way: _UnderWay | None = None
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    aj: Counter[str] = field(default_factory=Counter)
    cycles: Counter[str] = field(default_factory=Counter)
    latencies: LatencyCounts = field(default_factory=LatencyCounts)
    served: dict[tuple[int, Conditions], int] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    below_target_cycles: int = 0

    def __post_init__(self) -> None:
        self.hertz = self.grid.clock_mhz * 1e6
        self.window = SlidingAccuracy(self.goals.window_requests)
        self.least_right = self.goals.quality_target * self.goals.window_requests
        self.splits = tuple(f"split {number}" for number in range(len(self.grid.points)))
        self.bins = Binned(COUNTS, (*FLOWS, *self.splits))
        self.meter = _PowerMeter(self.grid)
        self.last_end = self.last_estimate = 0

    def begin(self, request: int, arrival: int, now: int) -> int:
        """Answer a request; return the cycles that its inference takes."""
        conditions = self.surroundings.at(now / self.hertz)
        answer = self.answerer.answer(Asked(request, now, self.point, conditions))
        point = self.grid.points[self.point]
        energy_aj = point.energy_aj(
            conditions.temperature_c, conditions.supply_v,
            extra_cycles=answer.extra_cycles, extra_energy_aj=answer.extra_energy_aj,
        )  # fmt: skip
        self.under_way = _UnderWay(now, answer, conditions, energy_aj)
        self.bins.flow("waiting_cycles", arrival, now)
        return point.cycles + answer.extra_cycles

    def end(self, request: int, arrival: int, now: int, waiting: Queued) -> int:  # noqa: ARG002
        """Count what came of an inference, and decide; return the cycles of a change."""
        done = self.under_way
        assert done is not None
        self._spend("requests", done.start, now - done.start, done.energy_aj)
        self.bins.flow(self.splits[self.point], done.start, now)
        self._count(done, now, now - arrival)
        self._judge(done.answer, now)
        self.monitor.observe(done.answer, self.point)
        conditions = self.surroundings.at(now / self.hertz)
        chosen = self._chosen(self._seen(now, waiting, conditions))
        if chosen == self.point:
            return 0
        return self._change(chosen, now, conditions)

    def idle(self, start: int, end: int) -> None:
        """Spend what the engine spends without a request."""
        conditions = self.surroundings.at(start / self.hertz)
        rates = self.grid.meter.rates(conditions.temperature_c, conditions.supply_v)
        energy_aj = (end - start) * rates.idle_aj_per_cycle
        self._spend("idle", start, end - start, energy_aj)
        self.bins.flow("idle_cycles", start, end)

    def _spend(self, on: str, start: int, cycles: int, energy_aj: int) -> None:
        """Book energy and time of a request, of idle time or of a change."""
        self.aj[on] += energy_aj
        self.cycles[on] += cycles
        self.bins.spread("energy_aj", start, start + max(cycles, 1), energy_aj)

    def _count(self, done: _UnderWay, now: int, latency: int) -> None:
        answer = done.answer
        self.latencies.add(latency)
        key = self.point, done.conditions
        self.served[key] = self.served.get(key, 0) + 1
        counted = {
            "answered": 1, "right": int(answer.right), "clean_right": int(answer.clean_right),
            "due": int(answer.due), "missed": int(latency > self.goals.deadline_cycles),
            "checked": answer.checked, "mismatches": answer.mismatches,
        }  # fmt: skip
        self._add(now - 1, counted)
        if self.answers is not None:
            self.answers.append(answer.right)

    def _add(self, cycle: int, counted: Mapping[str, int]) -> None:
        for name, amount in counted.items():
            self.counts[name] += amount
        self.bins.count(cycle, counted)

    def _judge(self, answer: Answer, now: int) -> None:
        """Move the sliding window on; the time since the last answer belongs to the old one."""
        if self._is_below_target:
            self.below_target_cycles += now - self.last_end
        self.window.add(answer.right)
        if self.window.is_full:
            self._add(now - 1, {"windows": 1, "window_right": self.window.right})

    @property
    def _is_below_target(self) -> bool:
        return self.window.is_full and self.window.right < self.least_right

    def _seen(self, now: int, waiting: Queued, conditions: Conditions) -> Observation:
        estimate = self.monitor.estimate()
        self.bins.flow("estimate_cycles", self.last_end, now, self.last_estimate)
        self.last_end, self.last_estimate = now, round(estimate.value / ESTIMATE_UNIT)
        slack = None
        if waiting.oldest is not None:
            slack = waiting.oldest + self.goals.deadline_cycles - now
        return Observation(
            cycle=now, point=self.point, estimate=estimate, queue=waiting.requests,
            slack_cycles=slack, power_mw=self.meter.power_mw(now, self.aj.total()),
            power_budget_mw=conditions.power_budget_mw,
            temperature_c=conditions.temperature_c, supply_v=conditions.supply_v,
        )  # fmt: skip

    def _chosen(self, seen: Observation) -> int:
        chosen = self.policy.decide(seen)
        try:
            number = whole_number(chosen)
        except TypeError:
            number = -1
        if not 0 <= number < len(self.grid.points):
            raise InputError(
                f"policy {type(self.policy).__name__} chose split {chosen!r} in cycle "
                f"{seen.cycle:,}: the grid has splits 0 to {len(self.grid.points) - 1}"
            )
        return number

    def _change(self, chosen: int, now: int, conditions: Conditions) -> int:
        """Change the split; return the cycles that it takes."""
        where = conditions.temperature_c, conditions.supply_v
        cycles = self.grid.change_cycles(self.point, chosen)
        energy_aj = self.grid.change_aj(self.point, chosen, *where)
        self._spend("changes", now, cycles, energy_aj)
        self._add(now - 1, {"changes": 1})
        self.bins.flow("changing_cycles", now, now + cycles)
        if len(self.changes) < MOST_CHANGES:
            self.changes.append(Change(now, self.point, chosen))
        self.point = chosen
        return cycles

    def result(self, end_cycle: int) -> MissionResult:
        """Close the books."""
        if self._is_below_target:
            self.below_target_cycles += end_cycle - self.last_end
        self.bins.flow("estimate_cycles", self.last_end, end_cycle, self.last_estimate)
        spent = Spent(
            self.aj["requests"], self.aj["idle"], self.aj["changes"],
            self.cycles["requests"], self.cycles["idle"], self.cycles["changes"],
        )  # fmt: skip
        kept = None if self.answers is None else np.frombuffer(self.answers, np.bool_)
        return MissionResult(
            clock_mhz=self.grid.clock_mhz, end_cycle=end_cycle, counts=self.counts,
            spent=spent, latencies=self.latencies, served=self.served,
            worst_window=self.window.worst, below_target_cycles=self.below_target_cycles,
            changes=tuple(self.changes), bins=self.bins.table(end_cycle), answers=kept,
        )  # fmt: skip


class _PowerMeter:
    """Mean power since METER_REQUESTS inferences ago, or since the start."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._ring = [(0, 0)] * METER_REQUESTS
        self._next = 0

    def power_mw(self, now: int, spent_aj: int) -> float:
        """Return the mean power up to now, when so much has been spent in all."""
        cycle, before_aj = self._ring[self._next]
        self._ring[self._next] = now, spent_aj
        self._next = (self._next + 1) % METER_REQUESTS
        return self._grid.meter.power_mw(spent_aj - before_aj, now - cycle)

"""How late the monitor sees the largest steps of the rate in a trace.

The engine stays with the least protected split, where most is checked. Before the step the monitor
has seen a full window; after it the conditions stay as they are where the step led, so that the
next step does not help it. What strikes belongs to the cycle, as in a mission.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, pairwise
from math import ceil

from nce_sim.runtime.answers import Answer, Answerer, Asked
from nce_sim.runtime.conditions import Conditions
from nce_sim.runtime.environment import Environment
from nce_sim.runtime.lane_rate import LaneRate
from nce_sim.runtime.monitor import Lag, Monitor, lag_after_step
from nce_sim.runtime.surface import Surface

MOST_STEPS = 3
MOST_REQUESTS = 1000
"""Requests after a step at the latest: a step that is not seen until then is not seen."""

Arrivals = Callable[[], Iterable[tuple[int, int]]]


def lags_of(
    environment: Environment, surface: Surface, lane_rate: LaneRate, answerer: Answerer,
    new_monitor: Callable[[], Monitor], arrivals: Arrivals, hertz: float, checked: int,
) -> dict[float, Lag | None]:  # fmt: skip
    """Return the lags after the largest steps of the mismatches, by time of the step in seconds.

    `checked` is the number of checks of an inference with the least protected split; without any
    there is nothing to see. Steps after the last request do not count.
    """
    if checked == 0:
        return {}
    point = len(surface.fractions) - 1

    def mismatches(here: Conditions) -> float:
        return surface.mismatches_per_check(point, lane_rate.at(here), here.dead_share)

    steps = [
        (time, before, after)
        for time, (before, after) in zip(
            environment.time_s[1:], pairwise(environment.conditions), strict=True
        )
        if mismatches(before) != mismatches(after)
    ]
    steps.sort(key=lambda step: -abs(mismatches(step[2]) - mismatches(step[1])))
    found: dict[float, Lag | None] = {}
    for time, before, after in steps[:MOST_STEPS]:
        monitor = new_monitor()
        window = ceil(monitor.window_checks / checked) + 1
        cycle = round(time * hertz)
        earlier, later = _around(arrivals(), cycle, window)
        if not later:
            continue
        for request, start in earlier:
            monitor.observe(answerer.answer(Asked(request, start, point, before)), point)
        told = _answers(answerer, later, cycle, point, after)
        found[time] = lag_after_step(monitor, told, point, mismatches(before), mismatches(after))
    return found


def _around(
    arrivals: Iterable[tuple[int, int]], cycle: int, before: int
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return the last requests before a cycle, and the first ones from it on."""
    last: deque[tuple[int, int]] = deque(maxlen=before)
    stream = iter(arrivals)
    for request, start in stream:
        if start >= cycle:
            return list(last), [(request, start), *islice(stream, MOST_REQUESTS - 1)]
        last.append((request, start))
    return list(last), []


def _answers(
    answerer: Answerer, later: Iterable[tuple[int, int]], step: int, point: int, after: Conditions
) -> Iterator[tuple[int, Answer]]:
    for request, start in later:
        yield start - step, answerer.answer(Asked(request, start, point, after))

"""What hardware can tell of the rate of faults: mismatches among the last checks, with an interval.

The monitor knows the errors of its checks, and corrects for them; it never sees the true rate.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from nce_sim.accuracy.statistics import CONFIDENCE, check_confidence, clopper_pearson
from nce_sim.errors import InputError
from nce_sim.faults.models import check_whole
from nce_sim.runtime.answers import Answer
from nce_sim.runtime.checks import check_errors
from nce_sim.runtime.observations import Estimate


class Monitor:
    """Estimates the mismatches per checked computation from a sliding window of checks.

    The window holds whole inferences: the fewest of the last ones that have `window_checks` checks
    together, so that what they found has no part in which they are. How many mismatches a rate
    of faults makes depends on the split, so that a new split empties the window: the estimate is
    one of the split in force, at the price of a wide interval after each change.

    With q true mismatches per check, f + (1 - m - f) q are reported: `false_alarm_rate` f of the
    checks without a mismatch report one, and `missed_share` m of the mismatches go unreported. The
    estimate and both ends of Clopper and Pearson's interval are carried through the inverse, and
    cut to [0, 1].
    Raises InputError for a window without checks, and for rates that allow no estimate.
    """

    def __init__(
        self, window_checks: int, false_alarm_rate: float = 0.0, missed_share: float = 0.0,
        confidence: float = CONFIDENCE,
    ) -> None:  # fmt: skip
        check_whole(window_checks, "Monitor: window_checks", 1)
        check_errors(false_alarm_rate, missed_share)
        check_confidence(confidence)
        self.window_checks, self.confidence = window_checks, confidence
        self.false_alarm_rate, self.missed_share = false_alarm_rate, missed_share
        self._counts: deque[tuple[int, int]] = deque()
        self._checks = self._mismatches = 0
        self._point = 0

    def observe(self, answer: Answer, point: int) -> None:
        """Take in the checks of an inference with the split at a point of the grid."""
        if point != self._point:
            self._counts.clear()
            self._checks = self._mismatches = 0
            self._point = point
        if not answer.checked:
            return
        self._counts.append((answer.checked, answer.mismatches))
        self._checks += answer.checked
        self._mismatches += answer.mismatches
        while self._checks - self._counts[0][0] >= self.window_checks:
            checked, mismatches = self._counts.popleft()
            self._checks -= checked
            self._mismatches -= mismatches

    def estimate(self) -> Estimate:
        """Return the estimate from the checks in the window."""
        if not self._checks:
            return Estimate(0.0, 0.0, 1.0, 0, self._point)
        low, high = _interval(self._mismatches, self._checks, self.confidence)
        reported = self._mismatches / self._checks
        value, low, high = (self._corrected(each) for each in (reported, low, high))
        return Estimate(value, low, high, self._checks, self._point)

    def _corrected(self, reported: float) -> float:
        """Return the mismatches per check that make so many be reported, cut to [0, 1]."""
        wrong = self.false_alarm_rate
        true = (reported - wrong) / (1 - self.missed_share - wrong)
        return min(1.0, max(0.0, true))


@lru_cache(maxsize=1 << 14)
def _interval(mismatches: int, checks: int, confidence: float) -> tuple[float, float]:
    """Return the interval of a share; few pairs of counts come again and again."""
    found = clopper_pearson(mismatches, checks, confidence)
    return found.low, found.high


@dataclass(frozen=True)
class Lag:
    """How late a monitor saw a step in the rate of faults: requests and cycles after it.

    `excludes`: the interval no longer holds the value before the step; `half`: the estimate has
    covered half of the step. One of them, or both, came first at that request.
    """

    requests: int
    cycles: int
    excludes: bool
    half: bool


def lag_after_step(
    monitor: Monitor, answers: Iterable[tuple[int, Answer]], point: int, before: float, after: float
) -> Lag | None:
    """Feed a monitor the answers after a step, and return when it saw it; None if it never does.

    `answers` come with the cycles since the step at which they were given. `before` and `after`
    are the mismatches per check on both sides of it. The monitor has seen the time before.
    Raises InputError where there is no step.
    """
    if before == after:
        raise InputError(f"a step leads from one rate to another one, not from {before} to itself")
    rises = after > before
    middle = (before + after) / 2
    for number, (cycle, answer) in enumerate(answers, 1):
        monitor.observe(answer, point)
        seen = monitor.estimate()
        excludes = seen.low > before if rises else seen.high < before
        half = seen.value >= middle if rises else seen.value <= middle
        if excludes or half:
            return Lag(number, cycle, excludes, half)
    return None

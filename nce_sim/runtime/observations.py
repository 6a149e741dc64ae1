"""What monitor and sensors tell a policy: nothing in here is the true rate of faults."""

from dataclasses import dataclass
from typing import Protocol

from nce_sim.runtime.answers import Answer


@dataclass(frozen=True)
class Estimate:
    """Mismatches per checked computation as the monitor estimates them, with an interval.

    `checks` computations stand behind it; with none, the interval is [0, 1] and `value` is 0.
    `point` is the index of the split under which they were made.
    """

    value: float
    low: float
    high: float
    checks: int
    point: int


@dataclass(frozen=True)
class Observation:
    """What is known when an inference has ended and the next has not begun.

    `queue` requests wait; `slack_cycles` is the time left until the deadline of the one that
    waits longest, None if none waits. `power_mw` is the mean over the last window of the engine's
    own meter; the other figures are those of sensors, None where there is none.
    """

    cycle: int
    point: int
    estimate: Estimate
    queue: int
    slack_cycles: int | None
    power_mw: float
    power_budget_mw: float | None
    temperature_c: float | None
    supply_v: float | None


class Monitor(Protocol):
    """Counts what hardware could see of faults, and estimates from it."""

    def observe(self, answer: Answer, point: int) -> None:
        """Take note of an inference under the split of that index."""

    def estimate(self) -> Estimate:
        """Return what is estimated now."""


class Policy(Protocol):
    """Decides which split comes next; it may keep state of its own."""

    def decide(self, seen: Observation) -> int:
        """Return the index in the grid of the split for the next inference."""

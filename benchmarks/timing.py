"""Timing jobs in alternation: what a busy machine does to one of them it does to all."""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.table import Row

Job = Callable[[], object]


@dataclass(frozen=True)
class Times:
    """Seconds of each job in each round, and why other jobs have none."""

    seconds: Mapping[str, list[float]]
    failures: Mapping[str, str]

    def relative(self, name: str, to: str, figure: str, note: str = "") -> Row:
        """Return how many times `to`'s time a job took."""
        return self._row(name, name, to, figure, note)

    def speed(self, name: str, to: str, figure: str, note: str = "") -> Row:
        """Return how many times as fast as `to` a job was."""
        return self._row(name, to, name, figure, note)

    def absolute(self, name: str, figure: str = "s", note: str = "") -> Row:
        """Return a job's seconds."""
        if name in self.failures:
            return Row(name, figure, note=self.failures[name])
        return Row.of(name, figure, self.seconds[name], min(self.seconds[name]), note)

    def less(self, name: str, part: str) -> "Times":
        """Return times in which `part`, which the job includes, is taken from it."""
        if name in self.failures or part in self.failures:
            return self
        alone = [
            whole - own for whole, own in zip(self.seconds[name], self.seconds[part], strict=True)
        ]
        return Times({**self.seconds, name: alone}, self.failures)

    def _row(self, name: str, over: str, under: str, figure: str, note: str) -> Row:
        for job in (over, under):
            if job in self.failures:
                return Row(name, figure, note=self.failures[job])
        above, below = self.seconds[over], self.seconds[under]
        ratios = [one / other for one, other in zip(above, below, strict=True)]
        return Row.of(name, figure, ratios, min(above) / min(below), note)


def alternate(makers: Mapping[str, Callable[[], Job]], rounds: int) -> Times:
    """Make all jobs and let them take turns, `rounds` times after a turn that does not count.

    A job that returns a float has timed itself, in seconds. One that cannot be made, or fails in
    the turn that does not count, is left out of the others; its reason is kept.
    """
    jobs: dict[str, Job] = {}
    failures: dict[str, str] = {}
    for name, make in makers.items():
        say(f"{name} ...")
        try:
            jobs[name] = make()
            jobs[name]()
        except Exception as reason:  # whatever a peer fails with is its result
            jobs.pop(name, None)
            failures[name] = why(reason)
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        for name, job in jobs.items():
            began = time.perf_counter()
            own = job()
            passed = time.perf_counter() - began
            seconds[name].append(own if isinstance(own, float) else passed)
    return Times(seconds, failures)


def attempt(name: str, figure: str, measure: Callable[[], list[Row]]) -> list[Row]:
    """Return the rows that `measure` finds, or one that says why it finds none."""
    say(f"{name} ...")
    try:
        return measure()
    except Exception as reason:
        return [Row(name, figure, note=why(reason))]


def why(reason: Exception) -> str:
    """Return what an exception says, in one line of bounded length."""
    first = next(iter(str(reason).strip().splitlines()), "")[:200]
    return first if isinstance(reason, Missing) else f"failed: {type(reason).__name__}: {first}"


class Missing(Exception):  # noqa: N818
    """A peer is not installed; the message says how to install it."""


def say(text: str) -> None:
    """Tell on standard error what is going on."""
    print(f"  {text}", file=sys.stderr, flush=True)

"""Answers for several policies: what was asked once is not computed again, and checks can be off.

Strikes belong to the time and not to the policy, so policies that ask the same get the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

from nce_sim.runtime.answers import Answer, Answerer, Asked
from nce_sim.runtime.check_cost import AddedCost

MOST_KEPT = 1 << 16
"""Answers that are remembered, those that were asked for last: some tens of megabytes."""


class SharedAnswers:
    """Remembers the answers of a slow answerer; a mission of any length fits into its memory."""

    def __init__(self, inner: Answerer) -> None:
        self._answer = lru_cache(MOST_KEPT)(inner.answer)

    def answer(self, asked: Asked) -> Answer:
        """Return what the answerer within says."""
        return self._answer(asked)


class Unchecked:
    """The same answers from an engine whose checks are switched off.

    `costs` is what they add to an inference at each point of the grid. The answer itself is the
    same with and without them.
    """

    def __init__(self, inner: Answerer, costs: Sequence[AddedCost]) -> None:
        self.inner, self.costs = inner, costs

    def answer(self, asked: Asked) -> Answer:
        """Return the answer without checks and what they cost."""
        found, cost = self.inner.answer(asked), self.costs[asked.point]
        return replace(
            found, checked=0, mismatches=0, extra_cycles=found.extra_cycles - cost.cycles,
            extra_energy_aj=found.extra_energy_aj - cost.energy_aj,
        )  # fmt: skip


class Counted:
    """The same answers; `advance` is told after each one."""

    def __init__(self, inner: Answerer, advance: Callable[[], None]) -> None:
        self.inner, self.advance = inner, advance

    def answer(self, asked: Asked) -> Answer:
        """Return what the answerer within says."""
        found = self.inner.answer(asked)
        self.advance()
        return found

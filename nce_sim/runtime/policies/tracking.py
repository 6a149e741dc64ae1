"""Fault-rate tracking: the least protection that meets the target at the estimated rate."""

from typing import Literal

from nce_sim.errors import InputError
from nce_sim.runtime.observations import Observation
from nce_sim.runtime.policies.context import PolicyContext, least_protected


class Tracking:
    """Turns the estimate into a rate, and the rate into a split, by the accuracy surface.

    `estimate` tells which figure of the monitor it goes by: "value", or the cautious "high", the
    upper end of the interval. As long as fewer than `least_checks` stand behind the estimate, as
    after a change, it goes to more protection only, and only where even the interval's lower end
    demands it. Where nothing has been checked for `probe_requests` inferences, as where no neuron
    is unprotected, nothing can be known: it goes one step to less protection to find out.
    """

    def __init__(
        self,
        context: PolicyContext,
        *,
        estimate: Literal["value", "high"] = "value",
        least_checks: int = 500,
        probe_requests: int = 100,
    ) -> None:
        if estimate not in ("value", "high"):
            raise InputError(f"policy tracking: estimate is value or high, not {estimate!r}")
        for name, given in (("least_checks", least_checks), ("probe_requests", probe_requests)):
            if given < 1:
                raise InputError(f"policy tracking: {name} is at least 1, not {given}")
        if context.surface is None:
            raise InputError("policy tracking needs an accuracy surface: measure one first")
        self.context, self.surface, self.estimate = context, context.surface, estimate
        self.least_checks = least_checks
        self.probe_requests, self.unchecked = probe_requests, 0
        self._splits: dict[tuple[float, int], int] = {}

    def decide(self, seen: Observation) -> int:
        """Return the split for the rate that is estimated."""
        found = seen.estimate
        if found.checks == 0:
            return self._probe(seen.point)
        self.unchecked = 0
        if found.checks < self.least_checks:
            return min(seen.point, self._split_for(found.low, found.point))
        return self._split_for(found.value if self.estimate == "value" else found.high, found.point)

    def _split_for(self, mismatches_per_check: float, point: int) -> int:
        """Return the split for an estimate; a monitor tells few different ones."""
        key = mismatches_per_check, point
        if key not in self._splits:
            if len(self._splits) >= MOST_KEPT:
                self._splits.clear()
            self._splits[key] = self._looked_up(*key)
        return self._splits[key]

    def _looked_up(self, mismatches_per_check: float, point: int) -> int:
        rate = self.surface.rate_of(mismatches_per_check, point)
        places = range(len(self.context.grid.points))
        accuracies = [self.surface.accuracy(each, rate) for each in places]
        return least_protected(accuracies, self.context.quality_target)

    def _probe(self, point: int) -> int:
        self.unchecked += 1
        if self.unchecked < self.probe_requests:
            return point
        self.unchecked = 0
        return min(point + 1, len(self.context.grid.points) - 1)


MOST_KEPT = 4096
"""Splits that are remembered, by estimate."""

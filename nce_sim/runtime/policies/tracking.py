"""Fault-rate tracking: the least protection that meets the target at the estimated rate."""

from typing import Literal

from nce_sim.errors import InputError
from nce_sim.runtime.observations import Observation
from nce_sim.runtime.policies.context import PolicyContext, least_protected


class Tracking:
    """Turns the estimate into a rate, and the rate into a split, by the accuracy surface.

    `estimate` tells which figure of the monitor it goes by: "value", or the cautious "high", the
    upper end of the interval. Where nothing has been checked for `probe_requests` inferences, as
    where no neuron is unprotected, nothing can be known: it goes one step to less protection to
    find out.
    """

    def __init__(
        self,
        context: PolicyContext,
        *,
        estimate: Literal["value", "high"] = "value",
        probe_requests: int = 100,
    ) -> None:
        if estimate not in ("value", "high"):
            raise InputError(f"policy tracking: estimate is value or high, not {estimate!r}")
        if probe_requests < 1:
            raise InputError(f"policy tracking: probe_requests is at least 1, not {probe_requests}")
        self.context, self.estimate = context, estimate
        self.surface = context.surface_for("tracking")
        self.probe_requests, self.unchecked = probe_requests, 0
        self._splits: dict[tuple[float, int], int] = {}

    def decide(self, seen: Observation) -> int:
        """Return the split for the rate that is estimated."""
        found = seen.estimate
        if found.checks == 0:
            return self._probe(seen.point)
        self.unchecked = 0
        key = (found.value if self.estimate == "value" else found.high), found.point
        if key not in self._splits:
            if len(self._splits) >= MOST_KEPT:
                self._splits.clear()
            rate = self.surface.rate_of(*key)
            self._splits[key] = least_protected(self.context, self.surface, rate)
        return self._splits[key]

    def _probe(self, point: int) -> int:
        self.unchecked += 1
        if self.unchecked < self.probe_requests:
            return point
        self.unchecked = 0
        return min(point + 1, len(self.context.grid.points) - 1)


MOST_KEPT = 4096
"""Answers of the surface that are remembered: a monitor tells few different estimates."""

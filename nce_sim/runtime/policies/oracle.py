"""Knows the true conditions of now, and nothing of what changing costs: no bound, but a mark."""

from nce_sim.errors import InputError
from nce_sim.runtime.conditions import Conditions
from nce_sim.runtime.observations import Observation
from nce_sim.runtime.policies.context import PolicyContext, least_protected


class Oracle:
    """Takes the least protection that meets the quality target under the true conditions."""

    def __init__(self, context: PolicyContext) -> None:
        if context.surroundings is None:
            raise InputError("policy oracle needs the environment that the engine is in")
        self.context, self.surroundings = context, context.surroundings
        self.accuracy = context.all_knowing
        self.hertz = context.grid.clock_mhz * 1e6
        self._last: tuple[Conditions, int] | None = None

    def decide(self, seen: Observation) -> int:
        """Return the split for the conditions of this cycle."""
        conditions = self.surroundings.at(seen.cycle / self.hertz)
        if self._last is None or self._last[0] != conditions:
            places = range(len(self.context.grid.points))
            accuracies = [self.accuracy(point, conditions) for point in places]
            self._last = conditions, least_protected(accuracies, self.context.quality_target)
        return self._last[1]

"""The best split whose power keeps below the budget."""

from collections import deque

from nce_sim.errors import InputError
from nce_sim.runtime.observations import Observation
from nce_sim.runtime.policies.context import PolicyContext


class PowerCap:
    """Takes the most protected split whose mean power at the present load fits the budget.

    `margin` is the share of the budget that is kept free. The load is the rate of arrivals over the
    last `window_requests` inferences: those that ended and those by which the queue grew. A split's
    power is that of its inferences at this rate, at most back to back, and of the idle time between
    them, under the sensors' temperature and supply. Where no split fits it takes the one with the
    least power; without a budget, the most protected one.
    """

    def __init__(
        self, context: PolicyContext, *, margin: float = 0.05, window_requests: int = 64
    ) -> None:
        if not 0 <= margin < 1:
            raise InputError(f"policy power_cap: margin is from 0 to below 1, not {margin:g}")
        if window_requests < 1:
            raise InputError(
                f"policy power_cap: window_requests is at least 1, not {window_requests}"
            )
        self.context, self.margin = context, margin
        self.ends: deque[tuple[int, int]] = deque([(0, 0)], maxlen=window_requests + 1)

    def decide(self, seen: Observation) -> int:
        """Return the split for the load, the budget and the conditions of now."""
        (start, queued), ended = self.ends[0], len(self.ends)
        self.ends.append((seen.cycle, seen.queue))
        if seen.power_budget_mw is None:
            return 0
        arrived = max(0, ended + seen.queue - queued)
        powers = self._powers_mw(arrived / (seen.cycle - start), seen)
        allowed = seen.power_budget_mw * (1 - self.margin)
        for point, power_mw in enumerate(powers):
            if power_mw <= allowed:
                return point
        return powers.index(min(powers))

    def _powers_mw(self, arrivals_per_cycle: float, seen: Observation) -> list[float]:
        """Return the mean power of each split if so many requests arrive."""
        context, where = self.context, (seen.temperature_c, seen.supply_v)
        meter = context.grid.meter
        idle_aj = meter.rates(*where).idle_aj_per_cycle
        powers = []
        for point in range(len(context.grid.points)):
            cycles = context.cycles(point)
            busy = min(1.0, arrivals_per_cycle * cycles)
            energy_aj = busy / cycles * context.energy_aj(point, *where) + (1 - busy) * idle_aj
            powers.append(meter.power_mw(energy_aj, 1))
        return powers

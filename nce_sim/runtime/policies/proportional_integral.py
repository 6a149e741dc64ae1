"""A proportional-integral controller of the unprotected fraction."""

from nce_sim.errors import InputError
from nce_sim.runtime.observations import Observation
from nce_sim.runtime.policies.context import PolicyContext


class ProportionalIntegral:
    """Steers the unprotected fraction so that the estimate settles at the set point.

    The error is 1 - estimate / setpoint: positive while there are fewer mismatches than allowed,
    and bounded below by `-MOST_ERROR`. The fraction is its integral, `integral_per_s` for each
    second, plus `proportional` times the error; the split of the nearest fraction is taken. The
    integral stays within the grid's ends, so that it does not wind up. It begins with the fraction
    in force at the first decision.
    """

    def __init__(
        self, context: PolicyContext, *, setpoint: float, proportional: float, integral_per_s: float
    ) -> None:
        if not 0 < setpoint <= 1:
            raise InputError(f"policy pi: setpoint is above 0 and at most 1, not {setpoint:g}")
        if min(proportional, integral_per_s) < 0 or proportional == integral_per_s == 0:
            raise InputError(
                "policy pi: proportional and integral_per_s are at least 0, and not both 0: given "
                f"are {proportional:g} and {integral_per_s:g}"
            )
        self.setpoint, self.proportional = setpoint, proportional
        self.integral_per_cycle = integral_per_s / (context.grid.clock_mhz * 1e6)
        self.fractions = [point.fraction for point in context.grid.points]
        self.integral: float | None = None
        self.last_cycle = 0

    def decide(self, seen: Observation) -> int:
        """Return the split of the fraction nearest to the controller's."""
        error = max(-MOST_ERROR, 1 - seen.estimate.value / self.setpoint)
        if self.integral is None:
            self.integral = self.fractions[seen.point]
        else:
            passed = seen.cycle - self.last_cycle
            wanted = self.integral + self.integral_per_cycle * error * passed
            self.integral = min(max(wanted, self.fractions[0]), self.fractions[-1])
        self.last_cycle = seen.cycle
        asked = self.integral + self.proportional * error
        return min(range(len(self.fractions)), key=lambda p: abs(self.fractions[p] - asked))


MOST_ERROR = 10.0
"""An estimate far beyond the set point counts as eleven times it: one burst does not last long."""

"""Two thresholds on the monitor's estimate, with hysteresis between them."""

from nce_sim.errors import InputError
from nce_sim.runtime.observations import Observation
from nce_sim.runtime.policies.context import PolicyContext


class Threshold:
    """Goes one step to more protection above one estimate, and to less below a lower one.

    Estimates are mismatches per checked computation. After a change it stays for `hold_requests`
    inferences at least, so that the estimate can follow. Where nothing has been checked, as where
    no neuron is unprotected, the estimate is 0 and it goes on to less protection.
    """

    def __init__(
        self, context: PolicyContext, *, above: float, below: float, hold_requests: int = 20
    ) -> None:
        if not 0 <= below < above <= 1:
            raise InputError(
                f"policy threshold: below must be less than above, both from 0 to 1, not "
                f"below {below:g} and above {above:g}"
            )
        if hold_requests < 1:
            raise InputError(f"policy threshold: hold_requests is at least 1, not {hold_requests}")
        self.above, self.below, self.hold_requests = above, below, hold_requests
        self.last = len(context.grid.points) - 1
        self.held = hold_requests

    def decide(self, seen: Observation) -> int:
        """Return the split in force, or one beside it."""
        self.held += 1
        if self.held < self.hold_requests:
            return seen.point
        chosen = seen.point
        if seen.estimate.value > self.above:
            chosen = max(0, seen.point - 1)
        elif seen.estimate.value < self.below:
            chosen = min(self.last, seen.point + 1)
        if chosen != seen.point:
            self.held = 0
        return chosen

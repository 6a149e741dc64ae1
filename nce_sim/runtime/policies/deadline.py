"""The fastest split when a deadline comes near, else what another policy says."""

from nce_sim.runtime.observations import Observation, Policy
from nce_sim.runtime.policies.context import PolicyContext


class Deadline:
    """Hurries while the request that waits longest has less than `slack_cycles` left.

    The slack has to cover the change and the inference. Else `inner` decides; it is asked in any
    case, so that its state follows.
    """

    def __init__(self, context: PolicyContext, *, inner: Policy, slack_cycles: int) -> None:
        self.fastest, self.inner, self.slack_cycles = context.fastest, inner, slack_cycles

    def decide(self, seen: Observation) -> int:
        """Return the fastest split, or the inner policy's."""
        chosen = self.inner.decide(seen)
        hurried = seen.slack_cycles is not None and seen.slack_cycles < self.slack_cycles
        return self.fastest if hurried else chosen

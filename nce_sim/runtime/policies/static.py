"""One split for the whole mission."""

from nce_sim.runtime.observations import Observation
from nce_sim.runtime.policies.context import PolicyContext


class Static:
    """Asks for one split, whatever happens."""

    def __init__(self, context: PolicyContext, *, fraction: float) -> None:
        self.point = context.point_of(fraction)

    def decide(self, seen: Observation) -> int:  # noqa: ARG002
        """Return that split."""
        return self.point

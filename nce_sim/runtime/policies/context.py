"""What a policy may know before the mission starts."""

from dataclasses import dataclass

from nce_sim.errors import InputError
from nce_sim.runtime.conditions import Surroundings
from nce_sim.runtime.grid import Grid
from nce_sim.runtime.surface_protocol import Surface


@dataclass(frozen=True)
class PolicyContext:
    """The grid with its figures, and what is asked of the engine.

    `quality_target` is a share of right answers. `surface` is None where none was measured;
    `surroundings`, the true environment, are for the oracle alone.
    """

    grid: Grid
    quality_target: float
    deadline_cycles: int
    surface: Surface | None = None
    surroundings: Surroundings | None = None

    def surface_for(self, policy: str) -> Surface:
        """Return the surface; raise InputError if there is none."""
        if self.surface is None:
            raise InputError(f"policy {policy} needs an accuracy surface: measure one first")
        return self.surface

    def point_of(self, fraction: float) -> int:
        """Return the split of that unprotected fraction; raise InputError if there is none."""
        fractions = [point.fraction for point in self.grid.points]
        if fraction not in fractions:
            known = ", ".join(f"{each:g}" for each in fractions)
            raise InputError(
                f"no split has unprotected fraction {fraction:g}: the grid has {known}"
            )
        return fractions.index(fraction)


def least_protected(context: PolicyContext, surface: Surface, rate: float) -> int:
    """Return the split of the largest unprotected fraction that meets the target at a rate.

    Where none does, the one with the best accuracy, of equals the most protected.
    """
    accuracies = [surface.accuracy(point, rate) for point in range(len(context.grid.points))]
    meeting = [p for p, each in enumerate(accuracies) if each >= context.quality_target]
    return meeting[-1] if meeting else accuracies.index(max(accuracies))

"""What a policy may know before the mission starts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from nce_sim.errors import InputError
from nce_sim.runtime.conditions import Surroundings
from nce_sim.runtime.grid import Grid
from nce_sim.runtime.surface_protocol import Surface, TrueAccuracy


@dataclass(frozen=True)
class PolicyContext:
    """The grid with its figures, and what is asked of the engine.

    `quality_target` is a share of right answers. `surface` is None where none was measured.
    `surroundings` and `true_accuracy`, which no engine knows, are for the oracle and the offline
    optimum alone. `check_cycles` and `check_aj`
    are what the monitor's checks add to an inference, by split; empty if they add nothing.

    Raises InputError unless these have an entry for each split.
    """

    grid: Grid
    quality_target: float
    deadline_cycles: int
    surface: Surface | None = None
    surroundings: Surroundings | None = None
    true_accuracy: TrueAccuracy | None = None
    check_cycles: tuple[int, ...] = ()
    check_aj: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("check_cycles", "check_aj"):
            if len(getattr(self, name)) not in (0, len(self.grid.points)):
                raise InputError(
                    f"{name} has {len(getattr(self, name))} entries: the grid has "
                    f"{len(self.grid.points)} splits"
                )

    def cycles(self, point: int) -> int:
        """Return the cycles of an inference with its checks, if no wave runs again."""
        checks = self.check_cycles[point] if self.check_cycles else 0
        return self.grid.points[point].cycles + checks

    def energy_aj(
        self, point: int, temperature_c: float | None = None, supply_v: float | None = None
    ) -> int:
        """Return the energy of an inference with its checks, in attojoules, under conditions."""
        cycles = self.check_cycles[point] if self.check_cycles else 0
        energy_aj = self.check_aj[point] if self.check_aj else 0
        return self.grid.points[point].energy_aj(
            temperature_c, supply_v, extra_cycles=cycles, extra_energy_aj=energy_aj
        )

    @cached_property
    def fastest(self) -> int:
        """The split with the least latency; of equals, the most protected one."""
        return min(range(len(self.grid.points)), key=self.cycles)

    @cached_property
    def all_knowing(self) -> TrueAccuracy:
        """The expected accuracy under true conditions; raises InputError if it is not given."""
        if self.true_accuracy is None:
            raise InputError(
                "the oracle and the optimum need an accuracy surface: measure one first"
            )
        return self.true_accuracy

    def point_of(self, fraction: float) -> int:
        """Return the split of that unprotected fraction; raise InputError if there is none."""
        fractions = [point.fraction for point in self.grid.points]
        if fraction not in fractions:
            known = ", ".join(f"{each:g}" for each in fractions)
            raise InputError(
                f"no split has unprotected fraction {fraction:g}: the grid has {known}"
            )
        return fractions.index(fraction)


def least_protected(accuracies: Sequence[float], quality_target: float) -> int:
    """Return the split of the largest unprotected fraction that meets the target.

    `accuracies` has that of each split. Where none meets the target it is the one with the best
    accuracy, of equals the most protected.
    """
    meeting = [point for point, each in enumerate(accuracies) if each >= quality_target]
    return meeting[-1] if meeting else list(accuracies).index(max(accuracies))

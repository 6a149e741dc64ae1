"""Which figure of the technology table moves an answer most."""

from collections.abc import Callable
from dataclasses import dataclass

from nce_sim.config.figures import figures_of, with_figure_at
from nce_sim.config.machine import Machine
from nce_sim.cost.actions import actions_of, spent_pj
from nce_sim.cost.activity import Activity
from nce_sim.cost.area import area_alone


@dataclass(frozen=True)
class Swing:
    """An answer with one figure at either end of its range, all others as they are."""

    figure: str
    at_low: float
    at_high: float
    is_assumption: bool

    @property
    def width(self) -> float:
        """How far the answer moves."""
        return abs(self.at_high - self.at_low)


def swings(machine: Machine, answer: Callable[[Machine], float]) -> list[Swing]:
    """Return how far each figure of the machine's table moves an answer, the farthest first.

    Figures that leave it where it is are left out.
    """
    found = []
    for path, figure in figures_of(machine.technology).items():
        if figure.low == figure.high:
            continue
        ends = (with_figure_at(machine.technology, path, end) for end in ("low", "high"))
        low, high = (
            answer(machine.model_copy(update={"technology": table})) for table in ends
        )  # fmt: skip
        if low != high:
            found.append(Swing(path, low, high, figure.assumption))
    return sorted(found, key=lambda swing: -swing.width)


def total_pj(machine: Machine, activity: Activity) -> float:
    """Return the energy of an activity on a machine whose area is found anew, in picojoules."""
    return spent_pj(actions_of(machine, area_alone(machine)), activity)

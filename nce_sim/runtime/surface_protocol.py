"""What policies ask of a measured accuracy surface: split x rate of faults."""

from collections.abc import Callable
from typing import Protocol

from nce_sim.runtime.conditions import Conditions

TrueAccuracy = Callable[[int, Conditions], float]
"""Expected share of right answers of a split, by its index in the grid, under true conditions."""


class Surface(Protocol):
    """Accuracy of each split of the grid over the rate of faults.

    A rate is a number that is 0 without faults; splits are indices in the grid.
    """

    def rate_of(self, mismatches_per_check: float, point: int) -> float:
        """Return the rate at which checks under that split see so many mismatches."""

    def accuracy(self, point: int, rate: float) -> float:
        """Return the expected share of right answers."""

"""What policies ask of a measured accuracy surface: split x rate of faults."""

from typing import Protocol

from nce_sim.runtime.conditions import Conditions


class Surface(Protocol):
    """Accuracy of each split of the grid over the rate of faults.

    A rate is one number that conditions stand for, 0 without faults; splits are indices in the
    grid.
    """

    def rate_of(self, mismatches_per_check: float, point: int) -> float:
        """Return the rate at which checks under that split see so many mismatches."""

    def rate_under(self, conditions: Conditions) -> float:
        """Return the rate that conditions stand for."""

    def accuracy(self, point: int, rate: float) -> float:
        """Return the expected share of right answers."""

"""Strikes: faults in the coordinates of the hardware, before the schedule says whom they hit."""

from dataclasses import dataclass

import numpy as np

from nce_sim.faults.effects import Change
from nce_sim.faults.table import Counts, Table

ALWAYS = 2**62
"""The end of a strike that lasts."""


@dataclass(frozen=True)
class Strikes(Table):
    """Faults of one inference at one site.

    `element` is the place within the site, `start` and `end` (exclusive) are cycles since the
    inference began, `change` is what happens to the word that is struck.
    """

    element: Counts
    start: Counts
    end: Counts
    change: Change

    @staticmethod
    def none() -> "Strikes":
        """Return no strikes."""
        empty = np.empty(0, np.int64)
        return Strikes(empty, empty, empty, Change.nothing(0))

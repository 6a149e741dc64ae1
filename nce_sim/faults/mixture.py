"""Strikes as nature mixes them: so many in every inference, shared out over sites by their rates.

Raw rates are far too low to wait for a fault. Instead each inference is struck a fixed number of
times, and each strike picks its site with the probability that the next fault of the chip is one
of that site.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from nce_sim.faults.mission import space_of
from nce_sim.faults.processes import Address, Fault, Single
from nce_sim.faults.strikes import Strikes
from nce_sim.faults.table import Counts
from nce_sim.machine.lookup import Schedule
from nce_sim.seeding import generator

MOST_KEPT = 4096
"""Inferences whose draw of sites is kept while their faults are drawn one after another."""


class Mixture:
    """Draws `count` strikes for every inference, independent of each other.

    `rates` has the rate of each fault's site; within a site, elements and cycles are uniform. A
    wave that runs again is not struck a second time.
    """

    def __init__(
        self, schedule: Schedule, faults: Sequence[Fault], rates: Sequence[float], count: int,
        seed: int = 0,
    ) -> None:  # fmt: skip
        total = sum(rates)
        if len(rates) != len(faults) or total <= 0 or count < 1:
            raise ValueError(f"{count} strikes on {len(faults)} sites with rates {rates}")
        self.faults, self.count, self.seed = tuple(faults), count, seed
        self.shares = [rate / total for rate in rates]
        self.spaces = [space_of(fault, schedule) for fault in faults]
        self._counts = lru_cache(maxsize=MOST_KEPT)(self._draw_counts)

    def of(self, fault: int, realisation: int, inference: int, again: bool) -> Strikes:
        """Return the strikes of one fault's site in one inference."""
        mine = int(self._counts(realisation, inference)[fault])
        if again or not mine:
            return Strikes.none()
        each = self.faults[fault]
        address = Address(self.seed, f"mixture/{each.stream}", realisation)
        return Single(mine).strikes(each.effect, self.spaces[fault], address, inference)

    def _draw_counts(self, realisation: int, inference: int) -> Counts:
        """Return how many strikes of one inference each site gets."""
        random = generator(self.seed, "mixture/sites", realisation, inference)
        counts: Counts = random.multinomial(self.count, self.shares).astype(np.int64)
        return counts

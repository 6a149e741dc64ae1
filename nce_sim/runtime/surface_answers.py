"""Answers drawn from a measured surface: the fast mode.

Every request has two uniform numbers: the first says whether its answer is right, the second how
many of its checks differ. They are the same whatever the split and the conditions, so that policies
are compared request by request.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from nce_sim.errors import InputError
from nce_sim.runtime.answers import Answer, Asked
from nce_sim.runtime.check_cost import AddedCost
from nce_sim.runtime.checks import Checks
from nce_sim.runtime.conditions import Conditions
from nce_sim.runtime.strikes import LaneFaults
from nce_sim.runtime.surface import Surface
from nce_sim.seeding import generator

BLOCK_REQUESTS = 1 << 12
"""Requests whose numbers are drawn together."""

MOST_BLOCKS = 4
MOST_NODES = 1 << 12
"""Splits under conditions whose chances are remembered."""


@dataclass(frozen=True)
class _Node:
    """The chances of one split under given conditions.

    `reported` is the cumulated distribution of the mismatches that are reported.
    """

    accuracy: float
    clean_accuracy: float
    checked: int
    reported: NDArray[np.float64]
    cost: AddedCost


class SurfaceAnswers:
    """Draws answers with the accuracy and the mismatches of a surface.

    An answer is right with the surface's accuracy at the rate that `faults` has under the
    conditions; mismatches are binomial, with the errors of `checks`. `costs` is what checks add to
    an inference with each split (see `check_costs`). What a surface does not hold is not drawn:
    waves that run again, errors that were detected and not corrected, and that an inference with
    mismatches is wrong more often than another one.
    Raises InputError unless there is a cost for each split.
    """

    def __init__(
        self, surface: Surface, faults: LaneFaults, checks: Checks, costs: Sequence[AddedCost],
        seed: int = 0,
    ) -> None:  # fmt: skip
        if len(costs) != len(surface.fractions):
            raise InputError(
                f"a surface of {len(surface.fractions)} splits needs as many costs of checks, not "
                f"{len(costs)}"
            )
        self.surface, self.faults, self.checks, self.costs = surface, faults, checks, costs
        self.seed = seed
        self._uniforms = lru_cache(MOST_BLOCKS)(self._draw)
        self._node = lru_cache(MOST_NODES)(self._chances)

    def answer(self, asked: Asked) -> Answer:
        """Return what comes of an inference; see `Answerer`."""
        block, place = divmod(asked.request, BLOCK_REQUESTS)
        first, second = self._uniforms(block)[place]
        node = self._node(asked.point, asked.conditions)
        return Answer(
            right=first < node.accuracy,
            clean_right=first < node.clean_accuracy,
            checked=node.checked,
            mismatches=int(node.reported.searchsorted(second)),
            extra_cycles=node.cost.cycles,
            extra_energy_aj=node.cost.energy_aj,
        )

    def _draw(self, block: int) -> list[list[float]]:
        """Return the uniform numbers of a block of requests."""
        drawn = generator(self.seed, "run time/answers", block).random((BLOCK_REQUESTS, 2))
        return drawn.tolist()

    def _chances(self, point: int, conditions: Conditions) -> _Node:
        """Work out the chances of a split under given conditions."""
        if not 0 <= point < len(self.costs):
            raise InputError(f"the surface has splits 0 to {len(self.costs) - 1}, not {point}")
        rate, dead = self.faults.rate_per_cycle(conditions), conditions.dead_share
        checked = int(self.checks.share * self.surface.unprotected[point] + 0.5)
        true = self.surface.mismatches_per_check(point, rate, dead)
        reported = binom.cdf(np.arange(checked + 1), checked, self.checks.reported_rate(true))
        return _Node(
            self.surface.accuracy(point, rate, dead), self.surface.accuracy(point, 0.0), checked,
            reported[: np.searchsorted(reported, 1.0) + 1], self.costs[point],
        )  # fmt: skip

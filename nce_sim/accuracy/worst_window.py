"""The worst window of answers of policies that met the same requests, and how it varies.

Answers close in time share faults and conditions, so that single requests are no sample. Whole
blocks of consecutive requests, as long as the window, are drawn with replacement around a circle
(circular block bootstrap: Politis and Romano 1992), the same blocks for all; joined to as many
requests as there were, they give one replicate of each worst window, and of their differences.

The interval is that of the percentiles of the replicates, widened to hold the observed difference:
a minimum is no smooth statistic, and replicates that miss the worst stretch of one side pull the
percentiles towards zero. It says how the difference depends on which stretches of this mission
there were, not how it would come out in another environment.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nce_sim.accuracy.statistics import CONFIDENCE, Difference
from nce_sim.errors import InputError
from nce_sim.seeding import generator

REPLICATES = 1000

Right = NDArray[np.bool_]


def worst_windows(right: Right, window: int) -> NDArray[np.float64]:
    """Return the share of right answers in each row's worst `window` consecutive ones.

    `right` is policies x requests; of fewer requests than a window, all are one.
    """
    size = min(window, right.shape[1])
    sums = np.zeros((len(right), right.shape[1] + 1), np.int32)
    np.cumsum(right, axis=1, out=sums[:, 1:])
    return np.asarray((sums[:, size:] - sums[:, :-size]).min(axis=1) / size)


def worst_window_differences(
    first: Right, others: Sequence[Right], window: int, *, seed: int = 0,
    confidence: float = CONFIDENCE,
) -> list[Difference]:  # fmt: skip
    """Return the worst window of `first` less that of each other one, with intervals.

    `confidence` is that of all intervals together (Bonferroni). Raises InputError unless all have
    the same number of requests, at least one.
    """
    counts = {len(first), *map(len, others)}
    if len(counts) > 1 or not len(first):
        raise InputError(f"policies answer the same requests, at least one: not {sorted(counts)}")
    if not others:
        return []
    right = np.array([first, *others])
    found = _less_others(worst_windows(right, window))
    drawn = np.array([_less_others(each) for each in _replicates(right, window, seed)])
    held = 1 - (1 - confidence) / len(others)
    low, high = np.quantile(drawn, [(1 - held) / 2, (1 + held) / 2], axis=0)
    return [
        Difference(float(value), float(min(value, least)), float(max(value, most)), held)
        for value, least, most in zip(found, low, high, strict=True)
    ]


def _less_others(worst: NDArray[np.float64]) -> NDArray[np.float64]:
    return worst[0] - worst[1:]


def _replicates(right: Right, window: int, seed: int) -> list[NDArray[np.float64]]:
    """Return the worst windows of resampled blocks."""
    count = right.shape[1]
    size = min(window, count)
    draws = generator(seed, "worst window/blocks")
    found = []
    for _ in range(REPLICATES):
        starts = draws.integers(count, size=-(-count // size))
        places = ((starts[:, None] + np.arange(size)) % count).ravel()[:count]
        found.append(worst_windows(right[:, places], window))
    return found

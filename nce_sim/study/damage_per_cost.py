"""Damage avoided per cost, where the cost of a layer is any curve over its protected neurons.

Which neurons to protect for a budget is separable resource allocation: each layer protects the
first k of its neurons for a cost c(k) and avoids the damage D(k). A choice in which every layer
has the greatest D(k) - lambda c(k) is the best for its own cost (Everett, "Generalized Lagrange
multiplier method", 1963): the ends of the edges of the concave majorant of the points (c(k), D(k)).
Edges are taken by falling slope, in all layers at once, as in bit allocation (Shoham and Gersho,
"Efficient bit allocation for an arbitrary set of quantizers", 1988).
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression


def damage_per_cost(
    damage: NDArray[np.float64], cost: NDArray[np.float64], least: float
) -> NDArray[np.float64]:
    """Return the slope of its edge of the majorant for each of a layer's n neurons.

    `damage` are n numbers above 0, what protecting each neuron avoids, in the order in which they
    are protected; `cost` are n + 1 numbers, c(0) to c(n). `least`, above 0, is what a neuron costs
    at least, on top of `cost`: that of neurons whose protection is free. The slopes are positive,
    finite and never rise, so that taking neurons by slope keeps the layer's order.

    They are the antitonic regression of damage per cost, weighted by cost, between the counts
    of `stops` (Barlow et al., "Statistical inference under order restrictions", 1972).
    """
    at = stops(cost)
    neurons = np.diff(at)
    # Only the way to the first stop can fall: it is free.
    paid = np.maximum(np.diff(cost[at]), 0.0) + least * neurons
    avoided = np.add.reduceat(damage, at[:-1])
    slopes = isotonic_regression(avoided / paid, weights=paid, increasing=False).x
    return np.repeat(slopes, neurons)


def stops(cost: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return 0 and the counts at which it pays to stop protecting a layer.

    At any other count, protecting more neurons costs less: where the curve falls to c(k), all
    counts before k that cost more than c(k) are passed over, and the majorant jumps to k.
    """
    cheapest_from_here = np.minimum.accumulate(cost[::-1])[::-1]
    return np.union1d([0], np.flatnonzero(cost <= cheapest_from_here))

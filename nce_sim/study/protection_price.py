"""What protecting a neuron costs on a machine: prices for a split that weighs damage against cost.

The machine is simulated with the same share of every layer protected, the most fragile neurons of
each, at eighths from none to all. What a layer then costs is a curve over its protected neurons:
its energy, leakage of its time included, or its cycles, which are those of the busier array. The
price of a neuron is the slope, at its place, of the greatest convex curve below:

- where mixing a layer costs (weights in both domains, crossings), the curve bends the wrong way,
  and all neurons have the price of the chord, (all protected - all unprotected) / neurons;
- where protecting a part relieves the busier array, the slope is negative up to balance: those
  neurons are free. They get the least price, LEAST_SHARE of the largest, and so come early.

Within a layer prices never fall while scores fall: a layer's order stays that of the ranking.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nce_sim.config.machine import Machine
from nce_sim.errors import InputError
from nce_sim.machine.engine import Network, Run, simulate
from nce_sim.resilience.ranking import Ranking
from nce_sim.resilience.split import Split

OBJECTIVES = ("neurons", "energy", "latency")
"""What a protected neuron may count as."""

SHARES = tuple(eighth / 8 for eighth in range(9))
"""Protected shares of every layer that are simulated."""

LEAST_SHARE = 0.01
"""The least price as a share of the largest: that of a neuron whose protection costs nothing."""


def price(
    ranking: Ranking, network: Network, machine: Machine, objective: str, *, batch: int = 1
) -> Ranking:
    """Return the ranking by score per price of protecting on this machine.

    "neurons" counts every neuron alike and returns the ranking itself. For the others see
    `protection_prices`, which says what is raised; so is InputError for a ranking by price.
    """
    check_objective(objective)
    ranking.check_unpriced()
    if objective == "neurons":
        return ranking
    prices = protection_prices(network, machine, objective, ranking, batch=batch)
    return ranking.per_price(prices, objective)


def protection_prices(
    network: Network, machine: Machine, objective: str, ranking: Ranking, *, batch: int = 1
) -> dict[str, NDArray[np.float64]]:
    """Return the price of protecting each neuron, by layer, in arrays of the layer's shape.

    In pJ for "energy" and in cycles for "latency", for a batch of images; 1 for "neurons". The
    `ranking` says which neurons of a layer are protected before others. Pooling and additions
    count with the layer with neurons before them.

    Raises InputError for an unknown objective, for a ranking of another network, and where
    protecting costs nothing in any layer, so that there is nothing to weigh.
    """
    check_objective(objective)
    if objective == "neurons":
        return {name: np.ones(values.shape) for name, values in ranking.relevance.items()}
    places = {name: _places_within(place) for name, place in ranking.places.items()}
    slopes = {}
    runs = [_run(network, machine, places, share, batch) for share in SHARES]
    for name, curve in _cost_curves(network, runs, objective).items():
        counts = [_count(share, places[name].size) for share in SHARES]
        slopes[name] = convex_slopes(counts, curve)
    largest = max(float(each.max()) for each in slopes.values())
    if largest <= 0:
        raise InputError(
            f"protecting costs no {objective} on machine '{machine.config.name}': there is nothing "
            f"to weigh; take objective 'neurons'"
        )
    least = LEAST_SHARE * largest
    return {name: np.maximum(slopes[name], least)[place] for name, place in places.items()}


def check_objective(objective: str, name: str = "objective") -> None:
    """Raise InputError unless it is a known one."""
    if objective not in OBJECTIVES:
        raise InputError(f"unknown {name} '{objective}': known are {', '.join(OBJECTIVES)}")


def convex_slopes(counts: Sequence[int], costs: Sequence[float]) -> NDArray[np.float64]:
    """Return the slopes of the greatest convex curve below points, one for each step of counts.

    `counts` rise from 0, and equal ones are one point. This is the lower convex hull by Andrew's
    monotone chain ("Another efficient algorithm for convex hulls in two dimensions", 1979).
    """

    def slope(first: int, last: int) -> float:
        return (costs[last] - costs[first]) / (counts[last] - counts[first])

    hull = [0]
    for point in range(1, len(counts)):
        if counts[point] == counts[hull[-1]]:
            continue
        while len(hull) > 1 and slope(hull[-2], hull[-1]) >= slope(hull[-1], point):
            hull.pop()
        hull.append(point)
    edges = list(pairwise(hull))
    steps = [counts[last] - counts[first] for first, last in edges]
    return np.repeat([slope(first, last) for first, last in edges], steps)


def _places_within(places: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return each neuron's place within its layer, 0 the least resilient."""
    found = np.empty(places.size, np.int64)
    found[np.argsort(places, axis=None)] = np.arange(places.size)
    return found.reshape(places.shape)


def _count(share: float, neurons: int) -> int:
    return int(share * neurons + 0.5)


def _run(
    network: Network, machine: Machine, places: dict[str, NDArray[Any]], share: float, batch: int
) -> Run:
    """Simulate with a share of every layer protected."""
    masks = {name: place >= _count(share, place.size) for name, place in places.items()}
    return simulate(network, machine, Split(1 - share, "neuron", masks), batch=batch)


def _cost_curves(network: Network, runs: Sequence[Run], objective: str) -> dict[str, list[float]]:
    """Return what each layer with neurons costs in each run, with the layers that carry it on."""
    costs = [_cost_by_layer(run, objective) for run in runs]
    curves: dict[str, list[float]] = {}
    latest = None
    for layer in network.layers:
        if layer.has_neurons:
            latest = layer.name
            curves[latest] = [0.0] * len(runs)
        if latest is None or layer.name not in costs[0]:
            continue
        curve = [cost[layer.name] for cost in costs]
        curves[latest] = [one + other for one, other in zip(curves[latest], curve, strict=True)]
    return curves


def _cost_by_layer(run: Run, objective: str) -> dict[str, float]:
    if objective == "energy":
        return dict(run.energy.by_layer_pj)
    return {name: float(end - start) for name, (start, end) in run.layer_intervals.items()}

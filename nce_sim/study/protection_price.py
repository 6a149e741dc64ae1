"""What protecting neurons costs on a machine, and the ranking by damage avoided per cost.

The machine is simulated with the same share of every layer protected, the most fragile neurons of
each, at the SHARES. What a layer then costs is a curve over its protected neurons: its energy,
leakage of its time included, or its cycles, which are those of the busier array.

- Where mixing a layer costs (weights in both domains, crossings), the curve bulges upwards: its
  first protected neurons are dear, and protecting its last ones may even save.
- Where protecting a part relieves the busier array, the curve falls up to balance: those neurons
  are free. They count as LEAST_SHARE of the dearest layer's, and so come early.

`damage_per_cost` weighs whole stretches of a layer on such a curve.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nce_sim.config.machine import Machine
from nce_sim.errors import InputError
from nce_sim.machine.engine import Network, Run, simulate
from nce_sim.resilience.ranking import Ranking
from nce_sim.resilience.split import Split
from nce_sim.study.damage_per_cost import damage_per_cost

OBJECTIVES = ("neurons", "energy", "latency")
"""What a protected neuron may count as."""

SHARES = (0.0, 1 / 64, *(eighth / 8 for eighth in range(1, 8)), 63 / 64, 1.0)
"""Protected shares of every layer that are simulated: close at the ends, where mixing begins."""

LEAST_SHARE = 1e-3
"""What a neuron costs at least, as a share of the mean price in the dearest layer."""

LEAST_DAMAGE = 1e-12
"""The least damage of a neuron, as a share of the largest: that of a score of 0 or below."""

_TIE = 2.0**-50
"""What a place in the ranking takes off a ratio: eight roundings, to tell equal ratios apart."""


@dataclass(frozen=True)
class CostCurve:
    """What a layer costs with so many of its neurons protected, in pJ or cycles.

    `counts` rise from 0 to all of the layer's neurons; `costs` are those of the counts.
    """

    counts: NDArray[np.int64]
    costs: NDArray[np.float64]

    @property
    def mean_price(self) -> float:
        """Cost of protecting everything over the cheapest way to run the layer, per neuron."""
        return float(self.costs[-1] - self.costs.min()) / int(self.counts[-1])

    def at_every_count(self) -> NDArray[np.float64]:
        """Return the costs of 0, 1, 2 ... protected neurons, on straight lines between counts."""
        return np.interp(np.arange(self.counts[-1] + 1), self.counts, self.costs)


def price(
    ranking: Ranking, network: Network, machine: Machine, objective: str, *, batch: int = 1
) -> Ranking:
    """Return the ranking by damage avoided per cost of protecting on this machine.

    The scores of `ranking` count as damages. "neurons" counts every neuron alike and returns the
    ranking itself; "energy" counts pJ and "latency" cycles, for a batch of images.

    Raises InputError for an unknown objective, a ranking by price, one of another network, and
    where protecting costs nothing in any layer, so that there is nothing to weigh.
    """
    check_objective(objective)
    ranking.check_unpriced()
    if objective == "neurons":
        return ranking
    curves = cost_curves(ranking, network, machine, objective, batch=batch)
    if all(curve.mean_price <= 0 for curve in curves.values()):
        raise InputError(
            f"protecting costs no {objective} on machine '{machine.config.name}': there is nothing "
            f"to weigh; take objective 'neurons'"
        )
    return ranking_per_cost(ranking, curves, objective)


def ranking_per_cost(
    ranking: Ranking, curves: Mapping[str, CostCurve], objective: str
) -> Ranking:  # fmt: skip
    """Return the ranking by damage avoided per cost, for the cost curve of each layer.

    Scores are positive and finite. They never rise within a layer, and of neurons with equal ones
    the less resilient comes first, so that a layer keeps its order and its splits are nested.
    Some layer's `mean_price` must be above 0.
    """
    least = LEAST_SHARE * max(curve.mean_price for curve in curves.values())
    largest = max(float(scores.max()) for scores in ranking.relevance.values())
    floor = LEAST_DAMAGE * largest if largest > 0 else 1.0
    ratios = {}
    for name, scores in ranking.relevance.items():
        places = ranking.places[name]
        in_order = np.argsort(places, axis=None)
        damage = np.maximum(scores.ravel()[in_order], floor)
        ratio = np.empty(scores.size)
        ratio[in_order] = damage_per_cost(damage, curves[name].at_every_count(), least)
        ratios[name] = ratio.reshape(scores.shape) * (1 - _TIE * places)
    return Ranking(replace(ranking.origin, objective=objective), ratios, ranking.lost_relevance)


def check_objective(objective: str, name: str = "objective") -> None:
    """Raise InputError unless it is a known one."""
    if objective not in OBJECTIVES:
        raise InputError(f"unknown {name} '{objective}': known are {', '.join(OBJECTIVES)}")


def cost_curves(
    ranking: Ranking, network: Network, machine: Machine, objective: str, *, batch: int = 1
) -> dict[str, CostCurve]:
    """Return the cost curve of each layer with neurons: in pJ for "energy", cycles for "latency".

    The `ranking` says which neurons of a layer are protected before others. Pooling and additions
    count with the layer with neurons before them. Raises InputError for a ranking of another
    network.
    """
    places = {name: _places_within(place) for name, place in ranking.places.items()}
    runs = [_run(network, machine, places, share, batch) for share in SHARES]
    curves = {}
    for name, costs in _costs_by_layer(runs, objective).items():
        counts = [_count(share, places[name].size) for share in SHARES]
        # In a small layer several shares are the same neurons, at the same cost.
        distinct, first = np.unique(counts, return_index=True)
        curves[name] = CostCurve(distinct, costs[first])
    return curves


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


def _costs_by_layer(runs: Sequence[Run], objective: str) -> dict[str, NDArray[np.float64]]:
    """Return what each layer with neurons costs in each run, with the layers that carry it on."""
    costs = [_costs_of(run, objective) for run in runs]
    found: dict[str, NDArray[np.float64]] = {}
    latest = None
    for work in runs[0].program.layers:
        if work.on_array:
            latest = work.layer.name
            found[latest] = np.zeros(len(runs))
        if latest is not None:
            found[latest] += [cost[work.layer.name] for cost in costs]
    return found


def _costs_of(run: Run, objective: str) -> dict[str, float]:
    if objective == "energy":
        return dict(run.energy.by_layer_pj)
    return {name: float(end - start) for name, (start, end) in run.layer_intervals.items()}

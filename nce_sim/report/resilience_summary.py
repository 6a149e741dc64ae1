"""What a ranking says of whole layers and of positions."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nce_sim.resilience.ranking import Ranking

Map = NDArray[np.float64]
"""Rows x columns."""


@dataclass(frozen=True)
class LayerResilience:
    """Resilience of one layer's neurons.

    `harmonic` is neurons / sum of relevance: with LRP this is the number of neurons, but for lost
    relevance (eq. 4 of the paper). `arithmetic` is the mean of the finite ones, NaN if there are
    none; `share_infinite` of the neurons have no relevance at all.
    """

    name: str
    neurons: int
    harmonic: float
    arithmetic: float
    share_infinite: float

    @property
    def harmonic_by_neurons(self) -> float:
        """The harmonic mean divided by the number of neurons."""
        return self.harmonic / self.neurons

    @property
    def arithmetic_by_neurons(self) -> float:
        """The arithmetic mean divided by the number of neurons."""
        return self.arithmetic / self.neurons


def layer_resilience(ranking: Ranking) -> list[LayerResilience]:
    """Return the summary of every layer, in the network's order."""
    layers = []
    for name, relevance in ranking.relevance.items():
        resilience = ranking.resilience[name]
        finite = resilience[np.isfinite(resilience)]
        total = float(relevance.sum())
        layers.append(
            LayerResilience(
                name=name,
                neurons=relevance.size,
                harmonic=relevance.size / total if total > 0 else float("inf"),
                arithmetic=float(finite.mean()) if len(finite) else float("nan"),
                share_infinite=1 - len(finite) / relevance.size,
            )
        )
    return layers


def spatial_layers(ranking: Ranking) -> list[str]:
    """Return the first layer that has positions and the middle one of all that have some."""
    names = [name for name, each in ranking.relevance.items() if each[0].size > 1]
    return list(dict.fromkeys((names[0], names[len(names) // 2]))) if names else []


def relevance_map(ranking: Ranking, layer: str) -> Map:
    """Return a layer's relevance summed over its channels, divided by the mean over positions."""
    total = ranking.relevance[layer].sum(axis=0)
    mean = float(total.mean())
    return np.asarray(total / mean if mean > 0 else total, np.float64)

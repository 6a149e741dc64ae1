"""The partition of the neurons into protected and unprotected ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from math import floor, isfinite
from numbers import Real

import numpy as np
from numpy.typing import NDArray

from nce_sim.errors import InputError

GRANULARITIES = ("neuron", "channel", "layer")
"""Units in which a split is made: a whole unit is protected or not."""


@dataclass(frozen=True)
class Split:
    """Which neurons are unprotected: a boolean array of the layer's shape for each layer.

    `asked_fraction` is what the user asked for; `unprotected_fraction` is what the units allow.
    """

    asked_fraction: float
    granularity: str
    unprotected: Mapping[str, NDArray[np.bool_]]

    @property
    def neurons(self) -> int:
        """Number of neurons."""
        return sum(mask.size for mask in self.unprotected.values())

    @cached_property
    def unprotected_neurons(self) -> int:
        """Number of neurons that are computed on PEs."""
        return sum(int(np.count_nonzero(mask)) for mask in self.unprotected.values())

    @property
    def unprotected_fraction(self) -> float:
        """Share of the neurons that are computed on PEs."""
        return self.unprotected_neurons / self.neurons

    @cached_property
    def identity(self) -> str:
        """SHA-256 of the bitmap: equal for splits that send the same neurons to the PEs."""
        digest = sha256()
        for mask in self.unprotected.values():
            digest.update(np.packbits(mask).tobytes())
        return digest.hexdigest()

    def __str__(self) -> str:
        return (
            f"split by {self.granularity}: {self.unprotected_neurons:,} of {self.neurons:,} "
            f"neurons unprotected ({self.unprotected_fraction:.2%})"
        )


def make_split(
    relevance: Mapping[str, NDArray[np.float64]],
    order: NDArray[np.int64],
    unprotected_fraction: float,
    granularity: str = "neuron",
) -> Split:
    """Leave the most resilient share of the neurons unprotected.

    With granularity "neuron", exactly floor(fraction x N + 1/2) neurons are unprotected. With
    "channel" or "layer", units are ordered by relevance per neuron (of equals, the first in the
    network is less resilient) and left unprotected whole, the most resilient first, while they fit
    into the asked share. Splits of one ranking are nested. `order` lists the neurons, least
    resilient first.

    Raises InputError for a fraction outside [0, 1] and an unknown granularity.
    """
    check_fraction(unprotected_fraction)
    if granularity not in GRANULARITIES:
        raise InputError(
            f"unknown granularity '{granularity}': known are {', '.join(GRANULARITIES)}"
        )
    limit = floor(unprotected_fraction * len(order) + 0.5)
    if granularity == "neuron":
        unprotected = np.zeros(len(order), bool)
        unprotected[order[len(order) - limit :]] = True
    else:
        unprotected = _whole_units(relevance, granularity, limit)
    masks, start = {}, 0
    for name, values in relevance.items():
        masks[name] = unprotected[start : start + values.size].reshape(values.shape)
        start += values.size
    return Split(float(unprotected_fraction), granularity, masks)


def check_fraction(fraction: float, name: str = "unprotected_fraction") -> None:
    """Raise InputError unless `fraction` is a number in [0, 1]."""
    if not isinstance(fraction, Real) or not isfinite(fraction) or not 0 <= fraction <= 1:
        raise InputError(f"{name} must be a number from 0 to 1, not {fraction}")


def _whole_units(
    relevance: Mapping[str, NDArray[np.float64]], granularity: str, limit: int
) -> NDArray[np.bool_]:
    """Mark the neurons of the most resilient units, as many as fit into `limit` neurons."""
    means, sizes = [], []
    for values in relevance.values():
        units = values.reshape(len(values) if granularity == "channel" else 1, -1)
        means.append(units.mean(axis=1))
        sizes.append(np.full(len(units), units.shape[1]))
    mean, size = np.concatenate(means), np.concatenate(sizes)
    most_resilient_first = np.argsort(-mean, kind="stable")[::-1]
    fitting = np.cumsum(size[most_resilient_first]) <= limit
    chosen = np.zeros(len(mean), bool)
    chosen[most_resilient_first[fitting]] = True
    return np.repeat(chosen, size)

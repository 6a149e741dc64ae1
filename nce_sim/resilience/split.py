"""The partition of the neurons into protected and unprotected ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from hashlib import sha256
from math import floor, isfinite, prod
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nce_sim.errors import InputError
from nce_sim.workload.layer import Shape

GRANULARITIES = ("neuron", "channel", "layer", "block")
"""Units in which a split is made: a whole unit is protected or not."""

Block = tuple[int, int]
"""(rows, columns) of positions of one map; in a vector, rows x columns consecutive features."""

DEFAULT_BLOCK: Block = (4, 4)
"""The block of a split by block for which none is given."""

Relevance = Mapping[str, NDArray[np.float64]]
"""Relevance of every neuron: an array of the layer's shape for each layer, in network order."""

Places = Mapping[str, NDArray[np.int32]]
"""Each neuron's place in the ranking, 0 the least resilient: arrays like those of Relevance."""

_NO_PLACE = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Alignment:
    """To what a split is rounded, so that it fills the waves of an array.

    `rows` are the lanes of a column of the array. In every channel, every `window` consecutive
    positions (row by row; the last window of a map may be shorter) hold a multiple of `rows`
    unprotected neurons, or unprotected ones only. With a `window` that is a multiple of `rows`, the
    protected neurons of a full window come in multiples of `rows` too.
    Raises InputError unless both are positive whole numbers.
    """

    rows: int
    window: int

    def __post_init__(self) -> None:
        for name, value in (("rows", self.rows), ("window", self.window)):
            if not _is_size(value):
                raise InputError(f"{name} must be a positive whole number, not {value!r}")

    def __str__(self) -> str:
        return f"{self.rows} rows in windows of {self.window} positions"


@dataclass(frozen=True)
class Split:
    """Which neurons are unprotected: a boolean array of the layer's shape for each layer.

    `asked_fraction` is what the user asked for; `unprotected_fraction` is what the units allow.
    `block` is the size of the units of granularity "block" (None: 4 x 4), and `alignment` what a
    split by neuron was rounded to, if it was. Raises InputError where these do not go together.
    """

    asked_fraction: float
    granularity: str
    unprotected: Mapping[str, NDArray[np.bool_]]
    block: Block | None = None
    alignment: Alignment | None = None

    def __post_init__(self) -> None:
        check_units(self.granularity, self.block, self.alignment)

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

    def map_bits(self, layer_name: str) -> int:
        """Return the bits of the protection map that the controller reads for a layer.

        One bit a unit: a neuron, a block, a channel or the layer. An aligned split is made of
        neurons that lie anywhere in their window, so it needs a bit for each of them.
        Raises InputError for a layer without neurons.
        """
        if layer_name not in self.unprotected:
            raise InputError(
                f"no layer '{layer_name}' with neurons: there are {', '.join(self.unprotected)}"
            )
        shape = self.unprotected[layer_name].shape
        unit = _unit_shape(shape, self.granularity, self.block)
        return prod(-(-size // extent) for size, extent in zip(shape, unit, strict=True))

    def __str__(self) -> str:
        units = self.granularity
        if units == "block":
            units += " of {} x {}".format(*(self.block or DEFAULT_BLOCK))
        if self.alignment is not None:
            units += f", aligned to {self.alignment}"
        return (
            f"split by {units}: {self.unprotected_neurons:,} of {self.neurons:,} "
            f"neurons unprotected ({self.unprotected_fraction:.2%})"
        )


def neuron_split(places: Places, unprotected_fraction: float) -> Split:
    """Leave exactly floor(fraction x N + 1/2) neurons unprotected, the most resilient ones.

    Raises InputError for a fraction outside [0, 1].
    """
    check_fraction(unprotected_fraction)
    neurons = sum(place.size for place in places.values())
    first = neurons - _limit(places, unprotected_fraction)
    masks = {name: place >= first for name, place in places.items()}
    return Split(float(unprotected_fraction), "neuron", masks)


def unit_split(
    relevance: Relevance,
    unprotected_fraction: float,
    granularity: str,
    block: Block | None = None,
) -> Split:
    """Leave the most resilient units unprotected, whole, as many as fit into the asked share.

    Units are ordered by relevance per neuron; of equals, the first in the network is less
    resilient. The first unit that does not fit ends the choice, so that splits are nested.
    `block` is for granularity "block" (None: 4 x 4); blocks are cut at the border of a map.

    Raises InputError for a fraction outside [0, 1], an unknown granularity and a wrong block.
    """
    check_fraction(unprotected_fraction)
    check_units(granularity, block)
    if granularity == "block":
        rows, columns = block or DEFAULT_BLOCK
        block = int(rows), int(columns)
    lengths, sizes, means = {}, [], []
    for name, values in relevance.items():
        lengths[name] = _unit_lengths(values.shape, _unit_shape(values.shape, granularity, block))
        sizes.append(reduce(np.multiply.outer, lengths[name]))
        means.append(_unit_sums(values, lengths[name]) / sizes[-1])
    limit = _limit(relevance, unprotected_fraction)
    chosen = _most_resilient(means, sizes, limit)
    masks = {
        name: _expand(units, lengths[name]) for name, units in zip(relevance, chosen, strict=True)
    }
    return Split(float(unprotected_fraction), granularity, masks, block)


def aligned_split(
    relevance: Relevance, places: Places, unprotected_fraction: float, align: Alignment
) -> Split:
    """Leave about the most resilient share unprotected, in whole waves of an array.

    Within each window of each channel, every `align.rows` neurons form a run, the most resilient
    ones first; what is left over is a shorter run. Runs are units, chosen as `unit_split` chooses
    them: at most rows - 1 neurons fewer than asked are unprotected, in each window its most
    resilient ones. Splits of one alignment are nested; with one row they are those by neuron.
    A vector of features counts as one channel.

    Raises InputError for a fraction outside [0, 1].
    """
    check_fraction(unprotected_fraction)
    runs = [_runs(values, places[name], align) for name, values in relevance.items()]
    means, sizes, firsts = zip(*runs, strict=True)
    limit = _limit(relevance, unprotected_fraction)
    chosen = _most_resilient(means, sizes, limit)
    masks = {
        name: _from_first(places[name], np.where(units, first, _NO_PLACE).min(axis=2), align)
        for name, units, first in zip(relevance, chosen, firsts, strict=True)
    }
    return Split(float(unprotected_fraction), "neuron", masks, alignment=align)


def check_fraction(fraction: float, name: str = "unprotected_fraction") -> None:
    """Raise InputError unless `fraction` is a number in [0, 1]."""
    if not isinstance(fraction, Real) or not isfinite(fraction) or not 0 <= fraction <= 1:
        raise InputError(f"{name} must be a number from 0 to 1, not {fraction}")


def check_units(granularity: str, block: Block | None, align: Alignment | None = None) -> None:
    """Raise InputError unless these name one kind of unit."""
    if granularity not in GRANULARITIES:
        raise InputError(
            f"unknown granularity '{granularity}': known are {', '.join(GRANULARITIES)}"
        )
    if block is not None:
        if granularity != "block":
            raise InputError(f"block goes with granularity 'block', not with '{granularity}'")
        if not isinstance(block, Sequence) or len(block) != 2 or not all(map(_is_size, block)):
            raise InputError(f"block must be two positive whole numbers, not {block!r}")
    if align is not None:
        if granularity != "neuron":
            raise InputError(f"align goes with granularity 'neuron', not with '{granularity}'")
        if not isinstance(align, Alignment):
            raise InputError(f"align must be an Alignment, not {align!r}")


def _is_size(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) > 0


def _limit(arrays: Relevance | Places, fraction: float) -> int:
    """Return how many neurons may be unprotected."""
    return floor(float(fraction) * sum(values.size for values in arrays.values()) + 0.5)


def _most_resilient(
    means: Sequence[NDArray[np.float64]], sizes: Sequence[NDArray[np.int64]], limit: int
) -> list[NDArray[np.bool_]]:
    """Mark the most resilient units, as many as fit into `limit` neurons.

    For each layer an array of the units' mean relevance and one of their neurons, of one shape;
    the marks have it too. Of units with equal means the later one is the more resilient.
    """
    mean = np.concatenate([each.ravel() for each in means])
    size = np.concatenate([each.ravel() for each in sizes])
    most_resilient_first = np.argsort(-mean, kind="stable")[::-1]
    fitting = np.cumsum(size[most_resilient_first]) <= limit
    chosen = np.zeros(len(mean), bool)
    chosen[most_resilient_first[fitting]] = True
    by_layer = np.split(chosen, np.cumsum([each.size for each in means])[:-1])
    return [marks.reshape(each.shape) for marks, each in zip(by_layer, means, strict=True)]


def _unit_shape(shape: Shape, granularity: str, block: Block | None) -> Shape:
    """Return the extent of a whole unit along each axis of a layer of this shape."""
    if granularity == "neuron":
        return (1,) * len(shape)
    if granularity == "channel":
        return (1, *shape[1:])
    if granularity == "layer":
        return shape
    rows, columns = block or DEFAULT_BLOCK
    return (rows * columns,) if len(shape) == 1 else (1, rows, columns)


def _lengths(size: int, extent: int) -> NDArray[np.int64]:
    """Cut an axis of `size` into parts of `extent`; the last may be shorter."""
    extent = min(extent, size)
    return np.minimum(extent, size - np.arange(0, size, extent))


def _unit_lengths(shape: Shape, unit: Shape) -> list[NDArray[np.int64]]:
    """Return the lengths of the units along each axis."""
    return [_lengths(size, extent) for size, extent in zip(shape, unit, strict=True)]


def _unit_sums(
    values: NDArray[np.float64], lengths: list[NDArray[np.int64]]
) -> NDArray[np.float64]:
    """Sum a layer's values over its units."""
    for axis, along in enumerate(lengths):
        values = np.add.reduceat(values, np.cumsum(along) - along, axis=axis)
    return values


def _expand(units: NDArray[np.bool_], lengths: list[NDArray[np.int64]]) -> NDArray[np.bool_]:
    """Give every neuron of a layer the mark of its unit."""
    for axis, along in enumerate(lengths):
        units = units.repeat(along, axis=axis)
    return units


def _by_channel(values: NDArray[Any]) -> NDArray[Any]:
    """Return a layer's values as channels x positions; features are positions of one channel."""
    return values.reshape(1 if values.ndim == 1 else len(values), -1)


def _runs(
    relevance: NDArray[np.float64], places: NDArray[np.int32], align: Alignment
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int32]]:
    """Cut a layer's windows into runs of `align.rows` neurons of similar resilience.

    Returns mean relevance, neurons and first place in the ranking of each run, as channels x
    windows x runs, the least resilient run of a window first. Short windows begin with runs that
    have no neurons.
    """
    place = _in_runs(_by_channel(places), align, absent=-1)
    # The ranking falls in relevance: sorted on their own, both arrays list the same neurons.
    value = -_in_runs(-_by_channel(relevance), align, absent=-np.inf)
    real = place >= 0
    size = real.sum(axis=3)
    mean = np.where(real, value, 0.0).sum(axis=3) / np.maximum(size, 1)
    # Rounding may put a short run of equals below its neighbour, which must go first.
    mean = np.maximum.accumulate(mean[..., ::-1], axis=2)[..., ::-1]
    return mean, size, np.where(real, place, _NO_PLACE).min(axis=3)


def _in_runs(values: NDArray[Any], align: Alignment, absent: float) -> NDArray[Any]:
    """Sort each window of channels x positions, rising; channels x windows x runs x rows.

    `absent`, which no value is less than, fills up short runs and windows.
    """
    channels, positions = values.shape
    window = min(align.window, positions)
    rows = min(align.rows, window)
    windows, runs = -(-positions // window), -(-window // rows)
    padded = np.full((channels, windows * window), absent, values.dtype)
    padded[:, :positions] = values
    slots = np.full((channels, windows, runs * rows), absent, values.dtype)
    slots[..., :window] = padded.reshape(channels, windows, window)
    slots.sort(axis=2)
    return slots.reshape(channels, windows, runs, rows)


def _from_first(
    places: NDArray[np.int32], first: NDArray[np.int32], align: Alignment
) -> NDArray[np.bool_]:
    """Mark the neurons from a place in the ranking on, given as channels x windows."""
    place = _by_channel(places)
    lengths = _lengths(place.shape[1], align.window)
    return (place >= first.repeat(lengths, axis=1)).reshape(places.shape)

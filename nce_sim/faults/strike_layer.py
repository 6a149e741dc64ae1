"""Apply hits to one layer's outputs: step the struck lanes, vote, finish, store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nce_sim.faults.hits import OUTPUT, Hits
from nce_sim.faults.lane_checks import ChecksumLanes, Notices
from nce_sim.faults.lanes import LayerLanes, turns
from nce_sim.faults.table import Counts
from nce_sim.faults.views import View, change_words
from nce_sim.faults.voting import NO_WAVES, Outcome, Struck, vote
from nce_sim.protection.schemes import ArrayScheme
from nce_sim.workload.execute import Executable
from nce_sim.workload.layer import Layer


@dataclass(frozen=True)
class ArrayHits:
    """All that strikes one layer on one array, for the images of a block; see `vote`."""

    scheme: ArrayScheme
    first: Struck
    again: Struck
    notices: Notices | None = None
    checksums: ChecksumLanes | None = None


@dataclass(frozen=True)
class LayerOutcome:
    """What came of it: see `Outcome`. `changed` counts struck neurons whose stored value differs.

    It has one entry an image of the block; `repeated` lists the waves that ran again by array.
    `reported` are the images in which a majority that reports corrected something.
    """

    changed: Counts
    failed: Counts
    reported: Counts
    repeated: Mapping[str, NDArray[np.int64]]


class Bounds:
    """The ranges that arrays hold their outputs in (activation range restriction).

    `low` and `high` are in the units of stored outputs, `mask` marks the neurons (the layer's
    shape) on lanes with such comparators.
    """

    def __init__(self, low: float, high: float, mask: NDArray[np.bool_], device: torch.device):
        self.low, self.high = low, high
        self.mask = torch.from_numpy(mask).to(device)

    def hold(self, outputs: Tensor) -> Tensor:
        """Return outputs within the range; NaN becomes the upper end, as minNum of IEEE 754."""
        held = torch.where(outputs.isnan(), self.high, outputs).clamp(self.low, self.high)
        return torch.where(self.mask, held, outputs)


def strike_layer(
    layer: Layer, views: Sequence[View], outputs: Tensor, hits: Mapping[str, ArrayHits],
    bounds: Bounds | None,
) -> tuple[Tensor, LayerOutcome]:  # fmt: skip
    """Return a layer's outputs (images x its shape) under its hits, by array, and what came of it.

    `views` are the operands that neurons read: the first those of all that are in no other.
    `outputs` belong to a whole block and are not changed.
    """
    executable = views[0].executable
    if not hits and bounds is None:
        empty = np.empty(0, np.int64)
        return outputs, LayerOutcome(np.zeros(len(outputs), np.int64), empty, empty, {})
    if bounds is not None:
        outputs = bounds.hold(outputs)
    struck_outputs = outputs.clone(memory_format=torch.preserve_format)
    failed, reported = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    repeated: dict[str, NDArray[np.int64]] = {}
    for array, each in hits.items():
        outcomes, repeated[array] = _outcomes_by_view(layer, views, each)
        for outcome in outcomes:
            failed.append(outcome.failed)
            reported.append(outcome.reported)
            _store_sums(executable, layer, struck_outputs, outcome)
    if bounds is not None:
        struck_outputs = bounds.hold(struck_outputs)
    for each in hits.values():
        _strike_stored(executable, layer, struck_outputs, each)
    changed = changed_outputs(outputs, struck_outputs)
    due, heard = (np.unique(np.concatenate(each)) for each in (failed, reported))
    return struck_outputs, LayerOutcome(changed, due, heard, repeated)


def changed_outputs(before: Tensor, after: Tensor) -> Counts:
    """Count, for each image, the outputs that are others than before."""
    return np.asarray(differing(before, after).sum(1).cpu().numpy(), np.int64)


def differing(before: Tensor, after: Tensor) -> Tensor:
    """Tell which outputs (images x neurons) are others than before; NaN is like NaN."""
    return ((before != after) & ~(before.isnan() & after.isnan())).flatten(1)


def _outcomes_by_view(
    layer: Layer, views: Sequence[View], hits: ArrayHits
) -> tuple[list[Outcome], NDArray[np.int64]]:
    """Return what each view's lanes hand on, and the waves that run again in any of them.

    A wave runs again whole, whichever view the neuron belongs to that asks for it: once all such
    waves are known, views that have more to repeat are voted on once more.
    """
    parts = list(zip(views, _by_view(views, hits), strict=True))
    outcomes = [_lanes_outcome(view, layer, mine) for view, mine in parts if len(mine.first)]
    repeated = np.unique(np.concatenate([NO_WAVES, *(each.repeated for each in outcomes)]), axis=0)
    if len(repeated) and len(views) > 1:
        outcomes = [
            _lanes_outcome(view, layer, mine, repeated)
            for view, mine in parts
            if len(mine.first) or len(mine.again)
        ]
    return outcomes, repeated


def _by_view(views: Sequence[View], hits: ArrayHits) -> list[ArrayHits]:
    """Return the hits before the non-linearity on the neurons of each view."""
    first, again = (each.take(each.hits.target != OUTPUT) for each in (hits.first, hits.again))
    of_first, of_again = (_view_of(views, each) for each in (first, again))
    return [
        replace(hits, first=first.take(of_first == number), again=again.take(of_again == number))
        for number in range(len(views))
    ]


def _view_of(views: Sequence[View], struck: Struck) -> Counts:
    """Return the view that each struck neuron belongs to."""
    found = np.zeros(len(struck), np.int64)
    for number, view in enumerate(views):
        if view.mask is not None:
            mine = view.mask.reshape(-1)[struck.hits.neuron]
            if view.image is not None:
                mine &= struck.image == view.image
            found[mine] = number
    return found


def _lanes_outcome(
    view: View, layer: Layer, hits: ArrayHits, others: NDArray[np.int64] = NO_WAVES
) -> Outcome:
    """Step the struck lanes of a view; only the images that are struck leave torch."""
    first, again = hits.first, hits.again
    images = np.unique(np.concatenate([first.image, again.image]))
    places = images if view.image is None else np.zeros(1, np.int64)
    (inputs,) = view.inputs  # lanes read one map
    needed = inputs[torch.from_numpy(places).to(inputs.device)]
    lanes = LayerLanes(view.executable, layer, needed.float().cpu().numpy())
    first, again = (
        Struck(each.hits, np.searchsorted(images, each.image)) for each in (first, again)
    )
    mine = others[np.isin(others[:, 0], images)]
    mine = np.stack([np.searchsorted(images, mine[:, 0]), mine[:, 1]], axis=1)
    notices = hits.notices.among(images) if hits.notices is not None else None
    outcome = vote(lanes, hits.scheme, first, again, mine, notices, hits.checksums)
    repeated = outcome.repeated.copy()
    repeated[:, 0] = images[repeated[:, 0]]
    return Outcome(
        images[outcome.image], outcome.neuron, outcome.sums, outcome.changed, repeated,
        images[outcome.failed], images[outcome.reported],
    )  # fmt: skip


def _store_sums(executable: Executable, layer: Layer, outputs: Tensor, outcome: Outcome) -> None:
    """Finish and store the sums that differ from those without faults."""
    changed = np.flatnonzero(outcome.changed)
    if not len(changed):
        return
    neurons = outcome.neuron[changed]
    values = executable.finish(layer, outcome.sums[changed], neurons // layer.positions)
    _write(layer, outputs, outcome.image[changed], neurons, values)


def _strike_stored(executable: Executable, layer: Layer, outputs: Tensor, hits: ArrayHits) -> None:
    """Change stored outputs: their bits, or by noise; what fills holes is not stored."""
    stored = hits.first.take(hits.first.hits.target == OUTPUT)
    if hits.checksums is not None:
        stored = stored.take(hits.checksums.stored[stored.hits.neuron])
    for turn in turns(stored.image * layer.outputs + stored.hits.neuron):
        image, neuron, change = stored.image[turn], stored.hits.neuron[turn], stored.hits.change
        change = change[turn]
        values = _read(layer, outputs, image, neuron)
        values = change_words(executable, layer, neuron, change, values)
        noise = change.noise / np.float32(executable.step(layer.name))
        with np.errstate(invalid="ignore"):  # noise on an infinite output
            values = np.where(noise == 0, values, executable.format.round(values + noise))
        _write(layer, outputs, image, neuron, values)


def _index(layer: Layer, image: Counts, neuron: Counts) -> tuple[Tensor, ...]:
    places = np.unravel_index(neuron, layer.out_shape)
    return tuple(torch.from_numpy(np.asarray(each, np.int64)) for each in (image, *places))


def _read(
    layer: Layer, outputs: Tensor, image: Counts, neuron: Counts
) -> NDArray[np.float32]:  # fmt: skip
    return outputs[_index(layer, image, neuron)].float().cpu().numpy()


def _write(
    layer: Layer, outputs: Tensor, image: Counts, neuron: Counts, values: NDArray[np.float32]
) -> None:
    written = torch.from_numpy(values.astype(np.float32)).to(outputs.device, outputs.dtype)
    outputs[_index(layer, image, neuron)] = written


def split_hits(hits: Hits, image: int) -> dict[int, Struck]:
    """Return the hits of one image by layer (place in the program)."""
    return {
        int(work): Struck(part, np.full(len(part), image))
        for work in np.unique(hits.work)
        for part in [hits[hits.work == work]]
    }

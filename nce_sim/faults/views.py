"""Which operands neurons read where words of a memory are wrong: views of one layer.

Readers of the same wrong words share a view: the layer's inputs and weights as they read them. What
no reader of wrong words computes stays as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nce_sim.faults.corruption import INPUTS, MAP_BITS, WEIGHTS, Corruptions
from nce_sim.faults.lanes import turns
from nce_sim.faults.table import Counts
from nce_sim.machine.storage import Storage
from nce_sim.schedule.domains import PROTECTED, UNPROTECTED
from nce_sim.workload.execute import Executable
from nce_sim.workload.graph import Parameters
from nce_sim.workload.layer import INPUT, Layer


@dataclass(frozen=True)
class View:
    """Operands of some neurons of one layer.

    `inputs` are those of the whole block, or of the one image `image` of it. `mask` (the layer's
    shape) marks the neurons that read them; None: all that are in no other view.
    """

    executable: Executable
    inputs: Tensor
    image: int | None = None
    mask: NDArray[np.bool_] | None = None

    def outputs_into(self, layer: Layer, outputs: Tensor) -> Tensor:
        """Return the block's outputs with those that this view's neurons compute."""
        if self.mask is None:
            return outputs
        mask = torch.from_numpy(self.mask).to(outputs.device)
        computed = self.executable.run_layer(layer, self.inputs)
        if self.image is None:
            return torch.where(mask, computed, outputs)
        outputs = outputs.clone(memory_format=torch.preserve_format)
        outputs[self.image] = torch.where(mask, computed[0], outputs[self.image])
        return outputs


def views_of(
    executable: Executable, layer: Layer, inputs: Tensor, wrong: Mapping[int | None, Corruptions],
    storage: Storage,
) -> list[View]:  # fmt: skip
    """Return the views of a layer, given the wrong words by image of the block (None: of all).

    `inputs` are the block's, images x the layer's input shape.
    """
    found = []
    for image, rows in wrong.items():
        part = inputs if image is None else inputs[image : image + 1]
        for mask, mine in _by_readers(layer, rows, storage):
            read = _wrong_inputs(executable, layer, part, mine, storage)
            found.append(View(_wrong_weights(executable, layer, mine), read, image, mask))
    return found


def _by_readers(
    layer: Layer, rows: Corruptions, storage: Storage
) -> list[tuple[NDArray[np.bool_], Corruptions]]:
    """Return sets of neurons with the wrong words that each neuron of a set reads."""
    if not storage.program.layers[int(rows.work[0])].on_array:
        return [(np.ones(layer.out_shape, bool), rows)]
    columns = (
        rows.array, rows.domain, rows.first_tile, rows.last_tile, rows.loaded_after,
        rows.started_at,
    )  # fmt: skip
    _, first, key = np.unique(np.stack(columns), axis=1, return_index=True, return_inverse=True)
    marks = np.stack([rows.readers(storage, int(row)) for row in first])
    read = np.flatnonzero(marks.any(axis=0))
    if not len(read):
        return []
    codes, code = np.unique(np.packbits(marks[:, read], axis=0), axis=1, return_inverse=True)
    found = []
    for number in range(codes.shape[1]):
        mask = np.zeros(layer.outputs, bool)
        mask[read[code.ravel() == number]] = True
        keys = np.unpackbits(codes[:, number], count=len(first)).astype(bool)
        found.append((mask.reshape(layer.out_shape), rows[keys[key.ravel()]]))
    return found


def _wrong_inputs(
    executable: Executable, layer: Layer, inputs: Tensor, rows: Corruptions, storage: Storage
) -> Tensor:
    """Return the inputs as they are read."""
    values = np.flatnonzero(rows.kind == INPUTS)
    bits = np.flatnonzero(rows.kind == MAP_BITS)
    if not len(values) and not len(bits):
        return inputs
    read = change_rows(executable, inputs, rows[values])
    if len(bits):
        flat = read.float().cpu().numpy().reshape(len(read), -1).copy()
        _misread(layer, flat, rows.place[bits], storage)
        read = read.clone(memory_format=torch.preserve_format)
        read.copy_(torch.from_numpy(flat.reshape(read.shape)))
    return read


def change_rows(executable: Executable, values: Tensor, rows: Corruptions) -> Tensor:
    """Return a copy of values (images x shape) with the words changed that rows name by place."""
    flat = values.float().cpu().numpy().reshape(len(values), -1).copy()
    for turn in turns(rows.place):
        mine = rows[turn]
        flat[:, mine.place] = _change_words(executable, mine, flat[:, mine.place])
    changed = values.clone(memory_format=torch.preserve_format)
    return changed.copy_(torch.from_numpy(flat.reshape(values.shape)))


def _change_words(
    executable: Executable, rows: Corruptions, values: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return words (images x rows) as the rows change them."""
    form = executable.format
    words = rows.change.of(form.encode(values)) & np.uint32(2**form.bits - 1)
    return form.decode(words)


def _wrong_weights(executable: Executable, layer: Layer, rows: Corruptions) -> Executable:
    """Return an executable whose layer has the weights as they are read."""
    struck = np.flatnonzero(rows.kind == WEIGHTS)
    if not len(struck):
        return executable
    held = executable.parameters[layer.name]
    flat = held.weight.float().cpu().numpy().reshape(-1).copy()
    for turn in turns(rows.place[struck]):
        mine = struck[turn]
        places = rows.place[mine]
        flat[places] = _change_words(executable, rows[mine], flat[places])
    weight = torch.empty_like(held.weight, memory_format=torch.preserve_format)
    weight.copy_(torch.from_numpy(flat.reshape(held.weight.shape)))
    changed = {**executable.parameters, layer.name: Parameters(weight, held.bias)}
    return replace(executable, parameters=changed)


def _misread(layer: Layer, flat: NDArray[np.float32], places: Counts, storage: Storage) -> None:
    """Read rows by a protection map with wrong bits: images x elements, in place.

    Packed rows hold a domain's elements closed up: a wrong bit shifts all that follow. With holes,
    the element alone is looked for where nothing is. What was never written reads zero.
    """
    source = layer.source
    name = storage.program.flattened.get(source, source)
    if name == INPUT:
        return
    work = storage.program.layers[storage.number[name]]
    shape = work.layer.out_shape
    width = shape[-1]
    written = storage.stored_by(work, UNPROTECTED)
    for row in np.unique(places // width):
        part = slice(row * width, (row + 1) * width)
        read = written[part].copy()
        wrong = places[places // width == row] - row * width
        np.logical_xor.at(read, wrong, True)
        if storage.program.machine.layout == "holes":
            flat[:, part] = np.where(read == written[part], flat[:, part], 0.0)
            continue
        found = np.zeros_like(flat[:, part])
        for domain in (PROTECTED, UNPROTECTED):
            stored = np.flatnonzero(written[part] == (domain == UNPROTECTED))
            asked = np.flatnonzero(read == (domain == UNPROTECTED))
            there = min(len(stored), len(asked))
            found[:, asked[:there]] = flat[:, part][:, stored[:there]]
        flat[:, part] = found

"""Which operands neurons read where words of a memory are wrong: views of one layer.

Readers of the same wrong words share a view: the layer's inputs and weights as they read them. What
no reader of wrong words computes stays as it is.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from nce_sim.faults.corruption import INPUTS, MAP_BITS, WEIGHTS, Corruptions
from nce_sim.faults.effects import Change
from nce_sim.faults.lanes import turns
from nce_sim.faults.table import Counts
from nce_sim.machine.storage import Storage
from nce_sim.schedule.domains import PROTECTED, UNPROTECTED
from nce_sim.workload.execute import Executable
from nce_sim.workload.formats import FORMATS
from nce_sim.workload.graph import Parameters
from nce_sim.workload.layer import Kind, Layer
from nce_sim.workload.quantised import lay_out

BYTES, BYTE_BITS = 4, 8

FEW_KEYS = 12
"""Sets of so few things are told apart by counting, which is faster than sorting."""

BITS_OF_BYTES = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class View:
    """Operands of some neurons of one layer.

    `inputs`, one for each source, are those of the whole block, or of the one image `image` of it.
    `mask` (the layer's shape) marks the neurons that read them; None: all that are in no other
    view. `pads`: some weight is infinite or NaN, so that a convolution must multiply its padding,
    too, as lanes do.
    """

    executable: Executable
    inputs: tuple[Tensor, ...]
    image: int | None = None
    mask: NDArray[np.bool_] | None = None
    pads: bool = False


def outputs_of(layer: Layer, views: Sequence[View], outputs: Tensor) -> Tensor:
    """Return a block's outputs with those that the neurons of all views but the first compute.

    `outputs` are what the first view computes. A view of one image is computed alone, with its own
    operands and with those of the first: kernels of another batch size may round differently, so
    only neurons whose bits then differ are changed.
    """
    found = outputs.clone(memory_format=torch.preserve_format)
    base = views[0]
    clean: dict[tuple[int, bool], Tensor] = {}
    for view in views[1:]:
        computed, mask = _run(view, layer, view.inputs, view.pads), _mask(view, found)
        if view.image is None:
            found = torch.where(mask, computed, found)
            continue
        part, key = slice(view.image, view.image + 1), (view.image, view.pads)
        if key not in clean:
            inputs = tuple(each[part] for each in base.inputs)
            clean[key] = _run(base, layer, inputs, view.pads)
        read = torch.where(equal_bits(clean[key], computed), outputs[part], computed)
        found[part] = torch.where(mask, read, found[part])
    return found


def _run(view: View, layer: Layer, inputs: tuple[Tensor, ...], pads: bool) -> Tensor:
    """Run a layer; if it `pads`, with zeros around its inputs: kernels may leave out their own."""
    if not pads:
        return view.executable.run_layer(layer, *inputs)
    down, right = layer.padding
    padded = functional.pad(inputs[0], (right, right, down, down))
    whole = replace(layer, padding=(0, 0), in_shape=tuple(padded.shape[1:]))
    return view.executable.run_layer(whole, padded)


def _mask(view: View, outputs: Tensor) -> Tensor:
    assert view.mask is not None
    return torch.from_numpy(view.mask).to(outputs.device)


def equal_bits(left: Tensor, right: Tensor) -> Tensor:
    """Compare elements by their bits, NaNs and signs of zero included."""
    kind = BITS_OF_BYTES[left.element_size()]
    return left.view(kind) == right.view(kind)


def views_of(
    executable: Executable, layer: Layer, inputs: Sequence[Tensor],
    wrong: Mapping[int | None, Corruptions], storage: Storage,
) -> list[View]:  # fmt: skip
    """Return the views of a layer, given the wrong words by image of the block (None: of all).

    `inputs` are the block's, one for each source: images x the layer's input shape.
    """
    found = []
    for image, rows in wrong.items():
        part = [each if image is None else each[image : image + 1] for each in inputs]
        for mask, mine in _by_readers(layer, rows, storage):
            read = _wrong_inputs(executable, layer, part, mine, storage)
            reads, finite = _wrong_weights(executable, layer, mine)
            pads = not finite and layer.kind is Kind.CONV2D and layer.padding != (0, 0)
            found.append(View(reads, read, image, mask, pads))
    return found


def _by_readers(
    layer: Layer, rows: Corruptions, storage: Storage
) -> list[tuple[NDArray[np.bool_], Corruptions]]:
    """Return sets of neurons with the wrong words that each neuron of a set reads."""
    if not storage.program.layers[int(rows.work[0])].on_array:
        return [(np.ones(layer.out_shape, bool), rows)]
    keys = rows.keys(storage)
    _, first, key = np.unique(keys, axis=1, return_index=True, return_inverse=True)
    marks = np.stack([rows.marks(storage, int(row)) for row in first])
    read = np.flatnonzero(marks.any(axis=0))
    found = []
    for keys_read, members in _alike(marks[:, read]):
        mask = np.zeros(layer.outputs, bool)
        mask[read[members]] = True
        found.append((mask.reshape(layer.out_shape), rows[keys_read[key.ravel()]]))
    return found


def _alike(marks: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.bool_], Counts]]:
    """Yield the different columns of marks, and where each stands."""
    if len(marks) <= FEW_KEYS:
        codes = (1 << np.arange(len(marks))) @ marks
        several = np.flatnonzero(np.bincount(codes, minlength=1)).tolist() if len(codes) else []
        for each in several:
            members = np.flatnonzero(codes == each)
            yield marks[:, members[0]], members
        return
    packed, code = np.unique(np.packbits(marks, axis=0), axis=1, return_inverse=True)
    for number in range(packed.shape[1]):
        members = np.flatnonzero(code.ravel() == number)
        yield marks[:, members[0]], members


def _wrong_inputs(
    executable: Executable, layer: Layer, inputs: Sequence[Tensor], rows: Corruptions,
    storage: Storage,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Return the inputs as they are read: map by map, of joined and of added ones."""
    rows = rows[np.isin(rows.kind, (INPUTS, MAP_BITS))]
    if not len(rows):
        return tuple(inputs)
    layers = {each.name: each for each in executable.network.layers}
    flat = np.concatenate([as_words(each) for each in inputs], axis=1)
    for part in storage.operands(storage.number[layer.name]):
        mine = rows[(rows.place >= part.first) & (rows.place < part.end)]
        if not len(mine):
            continue
        mine, words = replace(mine, place=mine.place - part.first), flat[:, part.first : part.end]
        change_rows(executable, layers.get(part.name), words, mine[mine.kind == INPUTS])
        if part.work is not None:
            misread(words, part.work, mine.place[mine.kind == MAP_BITS], storage)
    ends = np.cumsum([each[0].numel() for each in inputs])
    parts = np.split(flat, ends[:-1], axis=1)
    return tuple(
        as_tensor(words, each) for words, each in zip(parts, inputs, strict=True)
    )  # fmt: skip


def as_words(values: Tensor) -> NDArray[np.float32]:
    """Return a copy of stored outputs, images x places in the map."""
    return values.float().cpu().numpy().reshape(len(values), -1).copy()


def as_tensor(words: NDArray[np.float32], like: Tensor) -> Tensor:
    """Undo `as_words`."""
    read = torch.empty_like(like, memory_format=torch.preserve_format)
    return read.copy_(torch.from_numpy(words.reshape(like.shape)))


def change_rows(
    executable: Executable, layer: Layer | None, words: NDArray[np.float32], rows: Corruptions
) -> None:
    """Change those stored outputs of a layer (images x places in its map) that rows name.

    Without a layer they are the network's inputs.
    """
    for turn in turns(rows.place):
        mine = rows[turn]
        places = mine.place
        words[:, places] = change_words(executable, layer, places, mine.change, words[:, places])


def change_words(
    executable: Executable, layer: Layer | None, places: Counts, change: Change,
    values: NDArray[np.float32],
) -> NDArray[np.float32]:  # fmt: skip
    """Return stored outputs of a layer, at the last axis' places in its map, as they are changed.

    Without a layer they are weights, or the network's inputs. What int8 reads out as 32 bits is
    struck in one of its four bytes: the neuron's number modulo 4.
    """
    form = executable.format
    if layer is None or not executable.is_read_out(layer):
        return form.decode(change.of(form.encode(values)) & np.uint32(2**form.bits - 1))
    shift = (places % BYTES * BYTE_BITS).astype(np.uint32)
    words = FORMATS["fp32"].encode(values)
    byte = (words >> shift) & np.uint32(0xFF)
    words ^= (byte ^ (change.of(byte) & np.uint32(0xFF))) << shift
    return FORMATS["fp32"].decode(words)


def _wrong_weights(
    executable: Executable, layer: Layer, rows: Corruptions
) -> tuple[Executable, bool]:
    """Return an executable whose layer has the weights as they are read; are they all finite?"""
    struck = np.flatnonzero(rows.kind == WEIGHTS)
    if not len(struck):
        return executable, True
    held = executable.parameters[layer.name]
    flat = held.weight.float().cpu().numpy().reshape(-1).copy()
    for turn in turns(rows.place[struck]):
        mine = rows[struck[turn]]
        places = mine.place
        flat[places] = change_words(executable, None, places, mine.change, flat[places])
    weight = torch.empty_like(held.weight, memory_format=torch.preserve_format)
    weight.copy_(torch.from_numpy(flat.reshape(held.weight.shape)))
    wrong = Parameters(weight, held.bias)
    if executable.precision == "int8":  # larger weights may need sums in float64
        assert held.bias is not None
        wrong = lay_out(Parameters(weight.double(), held.bias.double()), executable.device)
    parameters = {**executable.parameters, layer.name: wrong}
    finite = bool(np.isfinite(flat[rows.place[struck]]).all())
    return replace(executable, parameters=parameters), finite


def misread(words: NDArray[np.float32], work: int, places: Counts, storage: Storage) -> None:
    """Change a layer's stored outputs (images x places) into what a map with wrong bits finds.

    Packed rows hold a domain's elements closed up: a wrong bit shifts all that follow. With holes,
    the element alone is looked for where nothing is. What was never written reads zero.
    """
    layer = storage.program.layers[work].layer
    width = layer.out_shape[-1]
    written = storage.stored_by(storage.program.layers[work], UNPROTECTED)
    for row in np.unique(places // width):
        part = slice(row * width, (row + 1) * width)
        asked_of = written[part].copy()
        wrong = places[places // width == row] - row * width
        np.logical_xor.at(asked_of, wrong, True)
        if storage.program.machine.layout == "holes":
            words[:, part] = np.where(asked_of == written[part], words[:, part], 0.0)
            continue
        found = np.zeros_like(words[:, part])
        for domain in (PROTECTED, UNPROTECTED):
            stored = np.flatnonzero(written[part] == (domain == UNPROTECTED))
            asked = np.flatnonzero(asked_of == (domain == UNPROTECTED))
            there = min(len(stored), len(asked))
            found[:, asked[:there]] = words[:, part][:, stored[:there]]
        words[:, part] = found

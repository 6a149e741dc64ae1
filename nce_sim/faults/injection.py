"""Inject the paper's faults into the outputs of the neurons of a block of images.

Random numbers are addressed by (seed, kind of fault, realisation, image, neuron) and by nothing
else. Whatever the method, the split or the fault's level, an image meets the same draws: faults
nest over probabilities and over splits, and compared variants see the same faults. The draws of
one block are made once and serve every variant that is evaluated on it.

A neuron's place in an image's row of draws counts the layers in order and, within a layer, row,
column, channel: the order in which channels-last maps lie in memory.
"""

from collections.abc import Sequence
from functools import cached_property
from math import floor, prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nce_sim.errors import InputError
from nce_sim.faults.models import Dropout, FaultModel, GaussianNoise, check_layers
from nce_sim.resilience.split import Split
from nce_sim.seeding import RandomRow, philox, uniforms_at
from nce_sim.workload.execute import Executable, OutputHook
from nce_sim.workload.graph import Workload
from nce_sim.workload.layer import Layer
from nce_sim.workload.layout import by_position, restore_shape, rows_by_position

PAIRS = 2**13
"""Pairs of normal numbers that are drawn at once: few enough to stay in the fastest caches."""

WIDENED = 2**19
"""Neurons whose masks are widened at once."""


class Scratch:
    """Memory that one block after another works in: fresh pages cost more than the work itself."""

    def __init__(self) -> None:
        self._held: dict[object, Tensor] = {}

    def take(self, use: object, dtype: torch.dtype, *shape: int) -> Tensor:
        """Return memory for one use; what was there of the same use is overwritten."""
        size = prod(shape)
        held = self._held.get(use)
        if held is None or held.dtype != dtype or held.numel() < size:
            with torch.inference_mode(False):
                held = self._held[use] = torch.empty(size, dtype=dtype)
        return held[:size].view(shape)


class BlockDraws:
    """The random numbers of all faults for one block of images.

    `images` are the images' places in their data set, `realisation` the one of all of them or one
    for each. Every array is images x neurons. Draws that
    are given the same `scratch` take their memory from one another: use one at a time.
    """

    def __init__(
        self,
        executable: Executable,
        seed: int,
        realisation: int | Sequence[int],
        images: Sequence[int],
        scratch: Scratch | None = None,
    ) -> None:
        self.executable = executable
        self.seed, self.images = seed, images
        own = [realisation] * len(images) if isinstance(realisation, int) else realisation
        self.rows = list(zip(own, images, strict=True))
        self.scratch = Scratch() if scratch is None else scratch
        self._survivors: dict[float, Tensor] = {}

    @property
    def neurons(self) -> int:
        """Neurons of the network."""
        return self.executable.network.neurons

    @cached_property
    def bytes(self) -> NDArray[np.uint8]:
        """A uniform byte for each neuron: the leading eight bits of its uniform number."""
        drawn = self.scratch.take("bytes", torch.uint8, len(self.images), self.neurons).numpy()
        for row, address in zip(drawn, self.rows, strict=True):
            RandomRow(self.seed, "dropout", *address).fill(row)
        return drawn

    def hits(self, probability: float) -> Tensor:
        """Return which neurons fail: exactly Bernoulli(probability), nested over probabilities.

        With 256 p = k + f a neuron fails if its byte is below k, or equals k and a fresh uniform
        number is below f.
        """
        return self.survivors(probability) == 0

    def survivors(self, probability: float) -> Tensor:
        """Return `hits` as masks of eight bits: 0 where a neuron fails, else -1, all bits set."""
        if probability not in self._survivors:
            use = ("survivors", probability)
            masks = self.scratch.take(use, torch.int8, len(self.images), self.neurons)
            self._compare(probability, masks.numpy())
            self._survivors[probability] = masks.to(self.executable.device)
        return self._survivors[probability]

    def _compare(self, probability: float, masks: NDArray[np.int8]) -> None:
        whole = floor(256 * probability)
        remainder = 256 * probability - whole
        if whole == 256:
            masks[:] = 0
            return
        for drawn, mask, address in zip(self.bytes, masks, self.rows, strict=True):
            np.greater_equal(drawn, whole, out=mask.view(np.bool_))
            if remainder > 0:
                tied = places_of(drawn, whole)
                key = philox(self.seed, "dropout tie", *address).random_raw()
                mask[tied] = uniforms_at(key, tied) >= remainder
            np.negative(mask, out=mask)

    @cached_property
    def normals(self) -> Tensor:
        """A standard normal number for each neuron, by Box and Muller's transform."""
        shape = (len(self.images), self.neurons)
        normals = self.scratch.take("normals", self.executable.dtype, *shape)
        for row, address in zip(normals, self.rows, strict=True):
            drawn = standard_normals(
                self.seed, "noise", self.neurons, *address, scratch=self.scratch
            )
            row.copy_(drawn)
        return normals.to(self.executable.device)


def places_of(row: NDArray[np.uint8], value: int) -> NDArray[np.intp]:
    """Return the places of a rare value in a row of bytes, in order: looks at eight at once."""
    equal = np.empty(-(-len(row) // 8) * 8, np.bool_)
    equal[-8:] = False
    np.equal(row, value, out=equal[: len(row)])
    words = equal.view(np.uint64)
    eights = np.flatnonzero(words != 0)
    found = np.flatnonzero(words[eights].view(np.bool_))
    return eights[found >> 3] * 8 + (found & 7)


def standard_normals(
    seed: int, stream: str, count: int, *counters: int, scratch: Scratch | None = None
) -> Tensor:
    """Return the first `count` normal numbers of a row, float32, within +-6.7 deviations.

    Two 32-bit words give a pair by Box and Muller's transform. They are signed integers;
    1/2 added to the magnitude of the first makes it a uniform number in (0, 1] (float32 rounds it
    to 2^31 at most). The first numbers of all pairs come before the second ones. NumPy's sine and
    cosine take half the time of torch's.
    """
    scratch = Scratch() if scratch is None else scratch
    pairs = -(-count // 2)
    radius, angle = halves = scratch.take("halves", torch.float32, 2, pairs).numpy()
    row = RandomRow(seed, stream, *counters)
    drawn = np.empty((min(PAIRS, pairs), 2), "<i4")
    for start in range(0, pairs, PAIRS):
        some = drawn[: pairs - start]
        row.fill(some.reshape(-1).view(np.uint8))
        halves[:, start : start + PAIRS] = some.T
    np.abs(radius, out=radius)
    radius += np.float32(0.5)
    radius *= np.float32(2.0**-31)
    np.log(radius, out=radius)
    radius *= np.float32(-2)
    np.sqrt(radius, out=radius)
    angle *= np.float32(np.pi * 2.0**-31)
    normals = scratch.take("row", torch.float32, 2, pairs)
    np.cos(angle, out=normals[0].numpy())
    np.sin(angle, out=normals[1].numpy())
    return normals.mul_(torch.from_numpy(radius)).view(-1)[:count]


class Injector:
    """One variant, a fault model on the unprotected neurons of a split, ready to be applied."""

    def __init__(self, executable: Executable, split: Split, fault: FaultModel) -> None:
        check_split(executable.network, split)
        self.fault = fault
        self.stored = executable.stored
        self.offsets = executable.network.offsets
        self.unprotected = {
            layer.name: by_position(split.unprotected[layer.name]).to(executable.device)
            for layer in executable.network.neuron_layers
        }
        self._struck = {name for name, mask in self.unprotected.items() if mask.any()}
        if isinstance(fault, GaussianNoise):
            layers = [layer.name for layer in executable.network.neuron_layers]
            check_layers(fault.mean_activation, layers, "GaussianNoise: mean_activation")
            unit = {name: executable.step(name) for name in self.unprotected}
            self.deviation = {
                name: (mask * (fault.sigma * fault.mean_activation[name] / unit[name])).to(
                    executable.dtype
                )
                for name, mask in self.unprotected.items()
            }
        else:
            self.protected_bits: dict[str, Tensor | None] = {
                name: None if mask.all() else mask.to(torch.int8).sub_(1)
                for name, mask in self.unprotected.items()
            }

    def strikes(self, layer: Layer) -> bool:
        """Tell whether a layer has unprotected neurons: all others stay as they are."""
        return layer.name in self._struck

    def hook(self, draws: BlockDraws) -> OutputHook:
        """Return the function that injects one block's faults into layers' outputs, in place."""

        def inject(layer: Layer, _: Tensor, output: Tensor) -> Tensor:
            if not self.strikes(layer):
                return output
            start = self.offsets[layer.name]
            own = slice(start, start + layer.neurons)
            neurons = rows_by_position(output)
            match self.fault:
                case Dropout(probability):
                    survivors = draws.survivors(probability)[:, own]
                    self._drop(neurons, survivors, self.protected_bits[layer.name], draws.scratch)
                case GaussianNoise():
                    neurons.addcmul_(draws.normals[:, own], self.deviation[layer.name])
                    neurons = self.stored(layer, neurons)
            return restore_shape(neurons, output)

        return inject

    @staticmethod
    def _drop(
        neurons: Tensor, survivors: Tensor, protected: Tensor | None, scratch: Scratch
    ) -> None:
        """Zero the neurons that neither survive nor are protected, some images at a time."""
        bits = neurons.view(bits_of(neurons.dtype))
        step = max(1, WIDENED // bits[0].numel())
        for some, surviving in zip(bits.split(step), survivors.split(step), strict=True):
            kept = surviving if protected is None else surviving | protected
            if bits.device.type == "cpu":
                mask = scratch.take("mask", bits.dtype, *some.shape).copy_(kept)
            else:
                mask = kept.to(bits.dtype)
            some.bitwise_and_(mask)


def bits_of(dtype: torch.dtype) -> torch.dtype:
    """Return the integer type of a type's width.

    Zeroing by bit masks is exact, and several times faster than by boolean ones.
    """
    return {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]


def check_split(network: Workload, split: Split) -> None:
    """Raise InputError unless the split has the network's layers and shapes."""
    expected = {layer.name: layer.out_shape for layer in network.neuron_layers}
    given = {name: mask.shape for name, mask in split.unprotected.items()}
    if expected != given:
        raise InputError(f"the split was made for another network than '{network.name}'")

"""Random numbers of the paper's faults for a block of images, each at an address of its own.

They are addressed by (seed, kind of fault, realisation, image, neuron) and by nothing else.
Whatever the method, the split or the fault's level, an image meets the same draws: faults nest over
probabilities and over splits, and compared variants see the same faults. The draws of one block are
made once and serve every variant that is evaluated on it.

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

from nce_sim.seeding import RandomRow, philox, uniforms_at
from nce_sim.workload.execute import Executable

PAIRS = 2**15
"""Pairs of normal numbers that are drawn at once: few enough to stay in a core's own caches."""


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
    for each. Every array is images x neurons. Draws that are given the same `scratch` take their
    memory from one another: use one at a time.
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

    def hits(self, probability: float) -> Tensor:
        """Return which neurons fail: exactly Bernoulli(probability), nested over probabilities.

        A neuron has a uniform byte, the leading bits of its uniform number. With 256 p = k + f it
        fails if its byte is below k, or equals k and a fresh uniform number is below f.
        """
        return self.survivors(probability) == 0

    def survivors(self, probability: float) -> Tensor:
        """Return `hits` as masks of eight bits: 0 where a neuron fails, else -1, all bits set."""
        if probability not in self._survivors:
            use = ("survivors", probability)
            masks = self.scratch.take(use, torch.int8, len(self.images), whole_lines(self.neurons))
            self._find_survivors(probability, masks.numpy())
            self._survivors[probability] = masks[:, : self.neurons].to(self.executable.device)
        return self._survivors[probability]

    def _find_survivors(self, probability: float, masks: NDArray[np.int8]) -> None:
        """Find all masks. Drawing bytes anew for each probability is cheaper than keeping them."""
        whole = floor(256 * probability)
        remainder = 256 * probability - whole
        if whole == 256:
            masks[:] = 0
            return
        drawn = self.scratch.take("bytes", torch.uint8, masks.shape[1]).numpy()
        for mask, address in zip(masks.view(np.bool_), self.rows, strict=True):
            RandomRow(self.seed, "dropout", *address).fill(drawn)
            tied = places_of(drawn, whole, mask) if remainder > 0 else None
            np.greater_equal(drawn, whole, out=mask)
            if tied is not None:
                key = philox(self.seed, "dropout tie", *address).random_raw()
                mask[tied] = uniforms_at(key, tied) >= remainder
            np.negative(mask.view(np.int8), out=mask.view(np.int8))

    @cached_property
    def normals(self) -> Tensor:
        """A standard normal number for each neuron, by Box and Muller's transform."""
        shape = (len(self.images), self.neurons)
        normals = self.scratch.take("normals", self.executable.dtype, *shape)
        for row, address in zip(normals, self.rows, strict=True):
            if row.dtype == torch.float32:
                standard_normals(self.seed, "noise", self.neurons, *address, out=row.numpy())
            else:
                drawn = self.scratch.take("row of normals", torch.float32, self.neurons)
                standard_normals(self.seed, "noise", self.neurons, *address, out=drawn.numpy())
                row.copy_(drawn)
        return normals.to(self.executable.device)


def whole_lines(count: int) -> int:
    """Return a number of bytes rounded up to lines of 64, in which places are looked for."""
    return -(-count // 64) * 64


def places_of(
    row: NDArray[np.uint8], value: int, memory: NDArray[np.bool_] | None = None
) -> NDArray[np.intp]:
    """Return the places of a rare value in a row of bytes, in order.

    `memory` to work in, if given, is as long as the row rounded up to whole lines.
    """
    equal = np.empty(whole_lines(len(row)), np.bool_) if memory is None else memory
    equal[len(row) :] = False
    np.equal(row, value, out=equal[: len(row)])
    words = equal.view(np.uint64)
    return _within(words, _within((words != 0).view(np.uint64)))


def _within(words: NDArray[np.uint64], some: NDArray[np.intp] | None = None) -> NDArray[np.intp]:
    """Return the places of ones among bytes of 0 or 1, read eight at a time.

    `some` are the words that hold any; they are looked for, if not given.
    """
    held = np.flatnonzero(words != 0) if some is None else some
    found = np.flatnonzero(words[held].view(np.bool_))
    return held[found >> 3] * 8 + (found & 7)


def standard_normals(
    seed: int, stream: str, count: int, *counters: int, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Return the first `count` normal numbers of a row, within +-6.7 deviations; in `out` if given.

    Two 32-bit words give a pair by Box and Muller's transform. They are signed integers;
    1/2 added to the magnitude of the first makes it a uniform number in (0, 1] (float32 rounds it
    to 2^31 at most). The first numbers of all pairs come before the second ones. NumPy's sine and
    cosine take half the time of torch's.
    """
    normals = np.empty(count, np.float32) if out is None else out
    pairs = -(-count // 2)
    first, second = normals[:pairs], normals[pairs:]
    row = RandomRow(seed, stream, *counters)
    drawn = np.empty((min(PAIRS, pairs), 2), "<i4")
    numbers = np.empty(drawn.shape, np.float32)
    lengths, angles = np.empty((2, len(drawn)), np.float32)
    for start in range(0, pairs, PAIRS):
        some = slice(0, min(PAIRS, pairs - start))
        row.fill(drawn[some].reshape(-1).view(np.uint8))
        np.copyto(numbers[some], drawn[some], casting="unsafe")
        radius = _radius(numbers[some, 0], lengths[some])
        angle = np.multiply(numbers[some, 1], np.float32(np.pi * 2.0**-31), out=angles[some])
        for half, turn in ((first, np.cos), (second, np.sin)):
            into = half[start : start + PAIRS]
            turn(angle[: len(into)], out=into)
            into *= radius[: len(into)]
    return normals


def _radius(words: NDArray[np.float32], out: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the distance from zero of the pairs of normal numbers that words stand for."""
    np.abs(words, out=out)
    out += np.float32(0.5)
    out *= np.float32(2.0**-31)
    np.log(out, out=out)
    out *= np.float32(-2)
    return np.sqrt(out, out=out)

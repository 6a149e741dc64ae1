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
from math import floor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nce_sim.errors import InputError
from nce_sim.faults.models import Dropout, FaultModel, GaussianNoise
from nce_sim.resilience.split import Split
from nce_sim.seeding import philox, random_bytes, uniforms_at
from nce_sim.workload.execute import Executable, OutputHook
from nce_sim.workload.graph import Workload
from nce_sim.workload.layer import Layer
from nce_sim.workload.layout import by_position, restore_shape, rows_by_position


class BlockDraws:
    """The random numbers of one realisation of all faults for one block of images.

    `images` are the images' places in their data set. Every array is images x neurons.
    """

    def __init__(
        self, executable: Executable, seed: int, realisation: int, images: Sequence[int]
    ) -> None:
        self.executable = executable
        self.seed, self.realisation, self.images = seed, realisation, images
        self._hits: dict[float, Tensor] = {}
        self._surviving_bits: dict[float, Tensor] = {}

    @property
    def neurons(self) -> int:
        """Neurons of the network."""
        return self.executable.network.neurons

    @cached_property
    def bytes(self) -> NDArray[np.uint8]:
        """A uniform byte for each neuron: the leading eight bits of its uniform number."""
        return np.stack(
            [
                random_bytes(self.seed, "dropout", self.neurons, self.realisation, image)
                for image in self.images
            ]
        )

    def hits(self, probability: float) -> Tensor:
        """Return which neurons fail: exactly Bernoulli(probability), nested over probabilities.

        With 256 p = k + f a neuron fails if its byte is below k, or equals k and a fresh uniform
        number is below f.
        """
        if probability not in self._hits:
            whole = floor(256 * probability)
            hit = self.bytes < whole if whole < 256 else np.ones(self.bytes.shape, bool)
            remainder = 256 * probability - whole
            if remainder > 0:
                for row, image in enumerate(self.images):
                    tied = np.flatnonzero(self.bytes[row] == whole)
                    key = philox(self.seed, "dropout tie", self.realisation, image).random_raw()
                    hit[row, tied] = uniforms_at(key, tied) < remainder
            self._hits[probability] = torch.from_numpy(hit).to(self.executable.device)
        return self._hits[probability]

    def surviving_bits(self, probability: float) -> Tensor:
        """Return `hits` as bit masks of the outputs' width: none of a failing neuron's bits."""
        if probability not in self._surviving_bits:
            hits = self.hits(probability).to(bits_of(self.executable.dtype))
            self._surviving_bits[probability] = hits.sub_(1)
        return self._surviving_bits[probability]

    @cached_property
    def normals(self) -> Tensor:
        """A standard normal number for each neuron, by Box and Muller's transform."""
        rows = [
            standard_normals(self.seed, "noise", self.neurons, self.realisation, image)
            for image in self.images
        ]
        return torch.stack(rows).to(self.executable.device, self.executable.dtype)


def standard_normals(seed: int, stream: str, count: int, *counters: int) -> Tensor:
    """Return the first `count` normal numbers of a row, float32, within +-6.7 deviations."""
    words = philox(seed, stream, *counters).random_raw(-(-count // 2)).astype("<u8", copy=False)
    halves = torch.from_numpy(words.view("<i4").astype(np.float32).reshape(-1, 2))
    radius = halves[:, 0].abs().add_(0.5).mul_(2.0**-31).clamp_max_(1.0).log_().mul_(-2).sqrt_()
    angle = halves[:, 1] * (np.pi * 2.0**-31)
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)])[:count]


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
        if isinstance(fault, GaussianNoise):
            check_means(executable.network, fault)
            unit = {name: executable.step(name) for name in self.unprotected}
            self.deviation = {
                name: (mask * (fault.sigma * fault.mean_activation[name] / unit[name])).to(
                    executable.dtype
                )
                for name, mask in self.unprotected.items()
            }
        else:
            self.protected_bits = {
                name: mask.to(bits_of(executable.dtype)).sub_(1)
                for name, mask in self.unprotected.items()
            }

    def hook(self, draws: BlockDraws) -> OutputHook:
        """Return the function that injects one block's faults into each layer's output."""

        def inject(layer: Layer, _: Tensor, output: Tensor) -> Tensor:
            start = self.offsets[layer.name]
            own = slice(start, start + layer.neurons)
            neurons = rows_by_position(output)
            match self.fault:
                case Dropout(probability):
                    surviving = draws.surviving_bits(probability)[:, own]
                    kept = surviving | self.protected_bits[layer.name]
                    faulty = kept.bitwise_and_(neurons.view(kept.dtype)).view(neurons.dtype)
                case GaussianNoise():
                    deviation = self.deviation[layer.name]
                    noisy = torch.addcmul(neurons, draws.normals[:, own], deviation)
                    faulty = self.stored(layer, noisy)
            return restore_shape(faulty, output)

        return inject


def bits_of(dtype: torch.dtype) -> torch.dtype:
    """Return the integer type of a floating-point type's width.

    Zeroing by bit masks is exact, and several times faster than by boolean ones.
    """
    return {torch.float32: torch.int32, torch.bfloat16: torch.int16}[dtype]


def check_split(network: Workload, split: Split) -> None:
    """Raise InputError unless the split has the network's layers and shapes."""
    expected = {layer.name: layer.out_shape for layer in network.neuron_layers}
    given = {name: mask.shape for name, mask in split.unprotected.items()}
    if expected != given:
        raise InputError(f"the split was made for another network than '{network.name}'")


def check_means(network: Workload, fault: GaussianNoise) -> None:
    """Raise InputError unless the noise knows every layer's mean activation."""
    missing = [
        layer.name for layer in network.neuron_layers if layer.name not in fault.mean_activation
    ]
    if missing:
        raise InputError(f"GaussianNoise: mean_activation lacks layer {', '.join(missing)}")

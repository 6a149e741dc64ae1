"""Ranges of activations, measured on training images: what int8 needs to choose its steps."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

import numpy as np
import torch
from torch import Tensor

from nce_sim.errors import InputError
from nce_sim.workload.execute import block_length, blocks, forward, pad_block, prepare
from nce_sim.workload.graph import Workload
from nce_sim.workload.images import Images
from nce_sim.workload.layer import INPUT, Kind, Layer

COVERED = 0.99999
"""Share of a layer's activations that the range of its step covers; see `calibrate`."""

DROPPED_BITS = 14
"""Magnitudes are counted by the leading 18 bits of their float32: within 2^-9 of their value."""


@dataclass(frozen=True)
class Calibration:
    """The activations that a network showed in float32 on `images` calibration images.

    Everything is by name, for the input, each layer with neurons and each addition (as steps of
    the machine, `Workload.in_steps`: of a layer that closes a residual block what its lanes store):
    `ranges` is what 127 steps of int8 stand for, `smallest` and `largest` are the ends of what was
    seen. `network` is the identity of the network.
    """

    network: str
    images: int
    ranges: Mapping[str, float]
    smallest: Mapping[str, float]
    largest: Mapping[str, float]

    def check(self, network: Workload) -> None:
        """Raise InputError if this is the calibration of another network."""
        if self.network != network.identity:
            raise InputError(
                f"the calibration was made with another network than '{network.name}': make one "
                f"with calibrate(network, images)"
            )


class _Activations:
    """What one layer's activations were: their ends, and a histogram of their magnitudes."""

    def __init__(self) -> None:
        self.smallest, self.largest = inf, -inf
        self.counts = torch.zeros(2 ** (31 - DROPPED_BITS), dtype=torch.int64)

    def add(self, name: str, values: Tensor) -> None:
        """Count float32 `values`; raise InputError if one is not finite."""
        low, high = (float(end) for end in values.aminmax())
        if not np.isfinite([low, high]).all():
            raise InputError(f"calibration: activations of '{name}' are not finite")
        self.smallest, self.largest = min(self.smallest, low), max(self.largest, high)
        magnitudes = values.abs().view(torch.int32).bitwise_right_shift_(DROPPED_BITS)
        self.counts += magnitudes.flatten().bincount(minlength=len(self.counts)).cpu()

    def range(self) -> float:
        """Return the magnitude that COVERED of all do not exceed, within 2^-9 of it."""
        seen = self.counts.cumsum(0).numpy()
        place = int(np.searchsorted(seen, COVERED * seen[-1]))
        end = float(np.array((place + 1) << DROPPED_BITS, np.uint32).view(np.float32))
        return min(end, max(abs(self.smallest), abs(self.largest)))


def calibrate(network: Workload, images: Images, device: str = "cpu") -> Calibration:
    """Run `images` (float32 N x the input's shape) through `network` and note the activations.

    Use training images. Memory does not grow with their number.

    A layer's range covers 99.999 % of its activations' magnitudes; larger ones saturate. Measured
    on allcnn-fashion, calibrated on 1,000 training images, over the first 2,000 test images
    (float32: 94.25 % right), accuracy and images with float32's class:

        99.9 %   94.15 %  1,988        99.995 %  94.25 %  1,993
        99.95 %  94.00 %  1,987        99.999 %  94.20 %  1,995
        99.99 %  94.00 %  1,993        maximum   93.80 %  1,987

    These differ by a few images, which may be chance.

    Raises InputError for images that do not fit and if activations are not finite.
    """
    network.check_images(images)
    executable = prepare(network, "float32", device).in_steps
    length = block_length(network)
    names = [
        layer.name
        for layer in executable.network.layers
        if layer.has_neurons or layer.kind is Kind.ADD
    ]
    found = {name: _Activations() for name in (INPUT, *names)}
    with torch.inference_mode():
        for block in blocks(len(images), length):
            valid = block.stop - block.start
            inputs = executable.images(pad_block(images[block], length))

            def note(layer: Layer, _: Tensor, output: Tensor, valid: int = valid) -> Tensor:
                found[layer.name].add(layer.name, output[:valid])
                return output

            found[INPUT].add(INPUT, inputs[:valid])
            forward(executable, inputs, hook=note, hooked=names)
    return Calibration(
        network=network.identity,
        images=len(images),
        ranges={name: seen.range() for name, seen in found.items()},
        smallest={name: seen.smallest for name, seen in found.items()},
        largest={name: seen.largest for name, seen in found.items()},
    )

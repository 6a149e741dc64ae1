"""Rank neurons by the damage that a given fault does to them: the fault-aware ranking.

To first order a fault that displaces a neuron's output y by d changes the objective by d x slope,
the slope being the objective's derivative with respect to y (Taylor's theorem; Molchanov et al.,
ICLR 2017, prune by it). A fault model says what it displaces, and so what is expected of that
change: see `Damaging`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from nce_sim.workload.execute import Executable, all_outputs
from nce_sim.workload.layer import Layer

Objective = Literal["margin", "loss"]

Means = Mapping[str, NDArray[np.float64]]
"""The mean damage of every neuron over the images: by layer, in the layer's shape."""


@dataclass(frozen=True)
class Sensitivity:
    """How the objective of a block of images hangs on the outputs of one layer.

    `inputs` is images x the layer's input shape, `output` and `slope` are images x its own shape,
    `objective` is images; all float32. `slope` is the objective's derivative with respect to
    `output`. `branches` are what a layer that closes a residual block adds to its sums, each
    images x its own shape.
    """

    layer: Layer
    inputs: Tensor
    output: Tensor
    slope: Tensor
    objective: Tensor
    branches: tuple[Tensor, ...] = ()

    def of(self, images: slice) -> "Sensitivity":
        """Return that of some of the images."""
        parts = (self.inputs, self.output, self.slope, self.objective)
        branches = tuple(branch[images] for branch in self.branches)
        inputs, output, slope, objective = (part[images] for part in parts)
        return Sensitivity(self.layer, inputs, output, slope, objective, branches)


class Damaging(Protocol):
    """A fault model that knows the damage it is expected to do.

    `objective` is whose slope `damage` takes. "margin" is the label's output less the largest
    other: an answer is wrong where it is negative. "loss" is the cross-entropy.
    """

    @property
    def objective(self) -> Objective:
        """Whose slope `damage` takes."""

    def damage(self, seen: Sensitivity) -> Tensor:
        """Return the damage expected from each neuron's fault, in the shape of the outputs."""

    def scores(self, means: Means) -> Means:
        """Return what neurons are ranked by: how damages of neurons in all layers compare."""


def objective_of(name: Objective, outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the objective of each image; `outputs` are images x classes."""
    if name == "loss":
        return functional.cross_entropy(outputs, labels, reduction="none")
    return margins(outputs, labels)


def margins(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return each image's margin: the label's output less the largest other."""
    own = outputs.gather(1, labels[:, None])[:, 0]
    return own - outputs.scatter(1, labels[:, None], -torch.inf).amax(1)


class DamageScores:
    """The damage expected of every neuron's fault, from one backward pass of the objective."""

    def __init__(self, executable: Executable, fault: Damaging) -> None:
        self.executable = executable
        self.fault = fault

    def __call__(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return each neuron layer's damages, images x the layer's shape, float32."""
        network = self.executable.network
        with torch.enable_grad():
            outputs = all_outputs(self.executable, images.detach().requires_grad_())
            last = outputs[network.output.name].flatten(1)
            objective = objective_of(self.fault.objective, last, labels)
        layers = network.neuron_layers
        slopes = torch.autograd.grad(objective.sum(), [outputs[layer.name] for layer in layers])
        with torch.no_grad():
            return {
                layer.name: self.fault.damage(
                    Sensitivity(
                        layer, outputs[layer.source].detach(), outputs[layer.name].detach(), slope,
                        objective.detach(), tuple(outputs[name].detach() for name in layer.others),
                    )
                )
                for layer, slope in zip(layers, slopes, strict=True)
            }  # fmt: skip

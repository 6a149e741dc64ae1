"""Rank neurons by the damage that a given fault does to them: the fault-aware ranking.

To first order a fault that displaces a neuron's output y by d changes the objective by d x slope,
the slope being the objective's derivative with respect to y (Taylor's theorem; Molchanov et al.,
ICLR 2017, prune by it). A fault model says what it displaces, and so what is expected of that
change: see `Damaging`.
"""

from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from nce_sim.workload.execute import Executable, all_outputs

Objective = Literal["margin", "loss"]


class Damaging(Protocol):
    """A fault model that knows the damage it is expected to do.

    `objective` is whose slope `damage` takes. "margin" is the label's output less the largest
    other: an answer is wrong where it is negative. "loss" is the cross-entropy.
    """

    @property
    def objective(self) -> Objective:
        """Whose slope `damage` takes."""

    def damage(self, layer: str, output: Tensor, slope: Tensor) -> Tensor:
        """Return the damage expected from each neuron's fault, in the shape of `output`.

        `output` and `slope` are images x the layer's shape, float32.
        """


def objective_of(name: Objective, outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the objective summed over the images; `outputs` are images x classes."""
    if name == "loss":
        return functional.cross_entropy(outputs, labels, reduction="sum")
    return margins(outputs, labels).sum()


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
        names = [layer.name for layer in network.neuron_layers]
        slopes = torch.autograd.grad(objective, [outputs[name] for name in names])
        with torch.no_grad():
            return {
                name: self.fault.damage(name, outputs[name].detach(), slope)
                for name, slope in zip(names, slopes, strict=True)
            }

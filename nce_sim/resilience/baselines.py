"""The rankings that layer-wise relevance propagation is compared with.

"gradient" is the mean absolute gradient of the loss (AxNN, ISLPED 2014; ApproxANN, DATE 2015);
"gradient_x_activation" and "activation" are there for orientation.
"fisher" is the mean of (y dloss/dy)^2 / 2: to second order, how much the loss rises when a neuron
falls silent, if the loss is at its minimum and its Hessian is the Fisher information (Fisher
pruning: Theis et al., arXiv 1801.05787, which removes whole maps; here the unit is a neuron).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from nce_sim.workload.execute import Executable, all_outputs

Score = Callable[[Tensor, Tensor], Tensor]
"""From a layer's output and the loss's gradient with respect to it to scores of its neurons."""

SCORES: dict[str, Score] = {
    "gradient": lambda _, gradient: gradient.abs_(),
    "gradient_x_activation": lambda output, gradient: gradient.mul_(output).abs_(),
    "activation": lambda output, _: output.abs(),
    "fisher": lambda output, gradient: gradient.mul_(output).square_().div_(2),
}


class GradientScores:
    """A score of every neuron from one backward pass of the cross-entropy loss."""

    def __init__(self, executable: Executable, score: Score) -> None:
        self.executable = executable
        self.score = score

    def __call__(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return each neuron layer's scores, images x the layer's shape, float32."""
        network = self.executable.network
        with torch.enable_grad():
            outputs = all_outputs(self.executable, images.detach().requires_grad_())
            loss = functional.cross_entropy(
                outputs[network.output.name].flatten(1), labels, reduction="sum"
            )
        names = [layer.name for layer in network.neuron_layers]
        gradients = torch.autograd.grad(loss, [outputs[name] for name in names])
        with torch.no_grad():
            return {
                name: self.score(outputs[name].detach(), gradient)
                for name, gradient in zip(names, gradients, strict=True)
            }

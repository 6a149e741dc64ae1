"""The conductance of every neuron (Dhamdhere et al., arXiv 1805.12233, eq. 2).

Integrated gradients (Sundararajan et al., ICML 2017) credit a network's output F to its inputs
along the straight path from a zero image to the image x; conductance credits it to hidden neurons:

    C = integral over a from 0 to 1 of  dF/dy (a x)  dy/da

F is the label's output. Over the neurons of one layer, C sums to F(x) - F(0).
"""

import torch
from torch import Tensor

from nce_sim.workload.execute import Executable, all_outputs

STEPS = 16
"""Steps of equal length into which the path is cut."""


def conductance(
    executable: Executable, images: Tensor, labels: Tensor, steps: int = STEPS
) -> dict[str, Tensor]:
    """Return each neuron layer's conductance, images x the layer's shape, signed, float32.

    By the trapezoidal rule in y: a step contributes the mean of dF/dy at its two ends times the
    change of y. It takes steps + 1 forward and backward passes.
    """
    total: dict[str, Tensor] = {}
    before: dict[str, tuple[Tensor, Tensor]] = {}
    for step in range(steps + 1):
        now = _outputs_and_slopes(executable, images * (step / steps), labels)
        for name, (output, slope) in before.items():
            output_now, slope_now = now[name]
            part = (slope + slope_now) / 2 * (output_now - output)
            total[name] = total[name] + part if name in total else part
        before = now
    return total


def _outputs_and_slopes(
    executable: Executable, images: Tensor, labels: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return each neuron layer's output and the slope of the label's output with respect to it."""
    network = executable.network
    with torch.enable_grad():
        outputs = all_outputs(executable, images.detach().requires_grad_())
        own = outputs[network.output.name].flatten(1).gather(1, labels[:, None]).sum()
    names = [layer.name for layer in network.neuron_layers]
    slopes = torch.autograd.grad(own, [outputs[name] for name in names])
    return {
        name: (outputs[name].detach(), slope) for name, slope in zip(names, slopes, strict=True)
    }

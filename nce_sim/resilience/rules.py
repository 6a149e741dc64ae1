"""The rules by which layer-wise relevance propagation goes back through a linear layer.

Every rule hands the relevance R_k of an output to the inputs in proportion to contributions z_jk:

    R_j = sum_k  z_jk / d_k  R_k

and differs in z_jk and in the denominator d_k; `ZPlus`, `Epsilon` and `Gamma` say how. This is one
step back through the map d whose terms are the z_jk: R = y * grad(d)(y)[R_k / d_k], so that
convolutions, fully connected layers and average pooling share one function.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from nce_sim.workload.execute import linear_part, run_layer
from nce_sim.workload.graph import Parameters
from nce_sim.workload.layer import Layer

SMALLEST_DENOMINATOR = 1e-30

Step = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From a layer's inputs, its outputs and their relevance to the relevance of the inputs."""

Additions = Literal["positive", "signed"]
"""By what an addition shares relevance: the positive parts of its branches, or what they add."""

Part = tuple[Tensor, Tensor | None]
"""Inputs and the weights that they meet; None where the layer has none."""


class Rule(Protocol):
    """A rule of propagation: where it starts and how it goes back through a linear layer."""

    def start(self, outputs: Tensor, one_hot: Tensor) -> Tensor:
        """Return the relevance of the network's outputs; both are images x classes."""

    def step(self, layer: Layer, parameters: Parameters | None, signed: bool) -> Step:
        """Return the step back through a convolution, a linear layer or an average pooling.

        `signed` tells whether its inputs may be negative.
        """

    def among(self, branches: Sequence[Tensor], relevance: Tensor) -> list[Tensor]:
        """Share the relevance of a sum of `branches`, all of one shape, among them."""


@dataclass(frozen=True)
class ZPlus:
    """The z+ rule (Schorn et al., DATE 2018, eq. 2): z = max(0, y w), d their sum.

    It starts from the one-hot label. Biases take no part. Where a denominator is zero its relevance
    is lost; nothing is added to keep it away from zero. Where inputs may be negative,
    contributions are max(0, y w) = y+ w+ + y- w-.

    A residual addition shares by the positive parts of its branches, z = max(0, y); with
    `additions` "signed" by the branches themselves, so that relevance of both signs may arise and
    grow without bound where branches almost cancel.
    """

    additions: Additions = "positive"

    def start(self, outputs: Tensor, one_hot: Tensor) -> Tensor:  # noqa: ARG002
        """Return the one-hot labels."""
        return one_hot

    def step(self, layer: Layer, parameters: Parameters | None, signed: bool) -> Step:
        """Return the step back through `layer`; weights are split once, here."""
        if parameters is None:
            return lambda inputs, _, relevance: share(
                layer, [(inputs.clamp_min(0), None)], None, _lost_at_zero(relevance)
            )
        positive = parameters.weight.clamp_min(0)
        if not signed:
            return lambda inputs, _, relevance: share(
                layer, [(inputs, positive)], None, _lost_at_zero(relevance)
            )
        negative = parameters.weight.clamp_max(0)
        return lambda inputs, _, relevance: share(
            layer,
            [(inputs.clamp_min(0), positive), (inputs.clamp_max(0), negative)],
            None,
            _lost_at_zero(relevance),
        )

    def among(self, branches: Sequence[Tensor], relevance: Tensor) -> list[Tensor]:
        """Return each branch's relevance."""
        if self.additions == "signed":
            total = sum(branches[1:], branches[0])
            factor = torch.where(total != 0, relevance / total, 0)
            return [branch * factor for branch in branches]
        positive = [branch.clamp_min(0) for branch in branches]
        factor = _lost_at_zero(relevance)(sum(positive[1:], positive[0]))
        return [branch * factor for branch in positive]


@dataclass(frozen=True)
class Epsilon:
    """The epsilon rule (Bach et al., PLoS ONE 10(7), 2015, eq. 58): z = y w, d = s + eps sign(s).

    s = sum_j y_j w_jk + b_k: the bias is one more contribution and keeps its share, as in the
    paper; sign(0) is 1. eps is `share` of the root mean square of s over the layer, image by image
    (0.25 as in Montavon et al., LRP: an overview, 2019), and absorbs its share too. Starts from the
    label's output.
    """

    share: float = 0.25

    def start(self, outputs: Tensor, one_hot: Tensor) -> Tensor:
        """Return the outputs of the labels, and zero for all others."""
        return outputs * one_hot

    def step(self, layer: Layer, parameters: Parameters | None, signed: bool) -> Step:  # noqa: ARG002
        """Return the step back through `layer`."""
        weight, bias = (None, None) if parameters is None else (parameters.weight, parameters.bias)

        return lambda inputs, _, relevance: share(
            layer, [(inputs, weight)], bias, lambda total: self._ratio(relevance, total)
        )

    def among(self, branches: Sequence[Tensor], relevance: Tensor) -> list[Tensor]:
        """Return each branch's relevance."""
        factor = self._ratio(relevance, sum(branches[1:], branches[0]))
        return [branch * factor for branch in branches]

    def _ratio(self, relevance: Tensor, total: Tensor) -> Tensor:
        """Return R / d."""
        over = tuple(range(1, total.dim()))
        epsilon = self.share * total.square().mean(over, keepdim=True).sqrt()
        size = (total.abs() + epsilon).clamp_min(SMALLEST_DENOMINATOR)
        return relevance / torch.where(total < 0, -size, size)


@dataclass(frozen=True)
class Gamma:
    """The gamma rule (Montavon et al., LRP: an overview, 2019): z = y (w + gamma w+), d their sum.

    This is its general form (Andeol et al., arXiv 2106.04923): the contributions that are favoured
    by 1 + gamma are those with the sign of the output, y+ w+ and y- w- for a positive one and
    y+ w- and y- w+ for a negative one. The bias is one more contribution, of an input of 1, and
    keeps its share. No denominator comes close to zero, for it is at least the output in magnitude,
    and outputs of zero have no relevance. Starts from the label's output.
    """

    gamma: float = 0.25

    def start(self, outputs: Tensor, one_hot: Tensor) -> Tensor:
        """Return the outputs of the labels, and zero for all others."""
        return outputs * one_hot

    def step(self, layer: Layer, parameters: Parameters | None, signed: bool) -> Step:
        """Return the step back through `layer`; weights are favoured once, here."""
        weight, bias = (None, None) if parameters is None else (parameters.weight, parameters.bias)
        output_signs = (1,) if layer.relu or (weight is None and not signed) else (1, -1)
        input_signs = (1, -1) if signed else (1,)
        weights = {sign: self._favour(weight, sign) for sign in {1, *input_signs, *output_signs}}
        biases = {sign: self._favour(bias, sign) for sign in output_signs}

        def back(inputs: Tensor, outputs: Tensor, relevance: Tensor) -> Tensor:
            found = torch.zeros_like(inputs)
            for output_sign in output_signs:
                parts = []
                for sign in input_signs:
                    side = _side(inputs, sign) if signed else inputs
                    if weight is None and sign == output_sign:
                        side = side * (1 + self.gamma)  # of a mean all weights are positive
                    parts.append((side, weights[sign * output_sign]))
                chosen = torch.where(output_sign * outputs > 0, relevance, 0)
                found += share(layer, parts, biases[output_sign], _ratio(chosen))
            return found

        return back

    def among(self, branches: Sequence[Tensor], relevance: Tensor) -> list[Tensor]:
        """Return each branch's relevance; those with the sign of the sum are favoured."""
        total = sum(branches[1:], branches[0])
        favoured = [
            branch + self.gamma * torch.where(branch * total > 0, branch, 0) for branch in branches
        ]
        chosen = torch.where(total != 0, relevance, 0)
        factor = _ratio(chosen)(sum(favoured[1:], favoured[0]))
        return [branch * factor for branch in favoured]

    def _favour(self, values: Tensor | None, sign: int) -> Tensor | None:
        return None if values is None else values + self.gamma * _side(values, sign)


def share(
    layer: Layer,
    parts: Sequence[Part],
    bias: Tensor | None,
    scale: Callable[[Tensor], Tensor],
) -> Tensor:
    """Share relevance among the inputs of `layer` in proportion to their contributions.

    The contributions are those of all `parts`, and `scale` returns R_k / d_k from their sum with
    the bias. Returns relevance in the shape and type of the inputs; the bias keeps its share.
    """
    inputs = [y.detach().requires_grad_() for y, _ in parts]
    with torch.enable_grad():
        maps = [
            run_layer(layer, None, y)
            if weight is None
            else linear_part(layer, weight, bias if number == 0 else None, y)
            for number, (y, (_, weight)) in enumerate(zip(inputs, parts, strict=True))
        ]
        total = sum(maps[1:], maps[0])
    with torch.no_grad():
        factors = scale(total)
    gradients = torch.autograd.grad(total, inputs, factors)
    with torch.no_grad():
        shares = [y * gradient for y, gradient in zip(inputs, gradients, strict=True)]
        return sum(shares[1:], shares[0])


def _lost_at_zero(relevance: Tensor) -> Callable[[Tensor], Tensor]:
    """Return R / d for denominators of zero or more; relevance is lost where they are zero."""

    def scale(total: Tensor) -> Tensor:
        # Where a denominator is 0, every contribution to it is 0 too, whatever it is divided by:
        # any finite stand-in loses that relevance exactly, and costs less than choosing element by
        # element. Kernels of other devices may transform their operands, so that zeros do not stay
        # exact there.
        if total.device.type == "cpu":
            return relevance / total.clamp_min(SMALLEST_DENOMINATOR)
        return torch.where(total > 0, relevance / total, 0)

    return scale


def _ratio(relevance: Tensor) -> Callable[[Tensor], Tensor]:
    """Return R / d, and zero where there is no relevance."""
    return lambda total: torch.where(relevance != 0, relevance / total, 0)


def _side(values: Tensor, sign: int) -> Tensor:
    """Return the positive or the negative part."""
    return values.clamp_min(0) if sign > 0 else values.clamp_max(0)

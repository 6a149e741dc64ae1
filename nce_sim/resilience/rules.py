"""The rules by which layer-wise relevance propagation goes back through a linear layer.

Every rule hands the relevance R_k of an output to the inputs in proportion to contributions z_jk:

    R_j = sum_k  z_jk / d_k  R_k

and differs in z_jk and in the denominator d_k; `ZPlus`, `Epsilon` and `Gamma` say how. The z_jk are
y_j times a weight, so that this is y_j times the step back of a linear map with those weights from
R_k / d_k: convolutions, fully connected layers and average pooling share one function.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from nce_sim.resilience.linear_map import LinearMap, linear_map
from nce_sim.workload.graph import Parameters
from nce_sim.workload.layer import Layer

SMALLEST_DENOMINATOR = 1e-30

Step = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From a layer's inputs, its outputs and their relevance to the relevance of the inputs."""

Additions = Literal["positive", "signed"]
"""By what an addition shares relevance: the positive parts of its branches, or what they add."""

Part = tuple[Tensor, LinearMap]
"""Inputs, and the map from them to the sums of their contributions."""


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
            means = linear_map(layer, None)
            return lambda inputs, _, relevance: share(
                [(inputs.clamp_min(0), means)], _lost_at_zero(relevance)
            )
        positive = _never_zero(layer, parameters.weight.clamp_min(0))
        if not signed:
            return lambda inputs, _, relevance: share([(inputs, positive)], _divided(relevance))
        negative = linear_map(layer, parameters.weight.clamp_max(0))
        return lambda inputs, _, relevance: share(
            [(inputs.clamp_min(0), positive), (inputs.clamp_max(0), negative)], _divided(relevance)
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
        whole = linear_map(layer, weight, bias)
        return lambda inputs, _, relevance: share(
            [(inputs, whole)], lambda total: self._ratio(relevance, total)
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
        # The bias meets no input: it goes with the first part, whatever its sign.
        maps = {
            (sign, output_sign): linear_map(
                layer,
                self._favour(weight, sign * output_sign),
                self._favour(bias, output_sign) if sign == input_signs[0] else None,
            )
            for sign in input_signs
            for output_sign in output_signs
        }

        def back(inputs: Tensor, outputs: Tensor, relevance: Tensor) -> Tensor:
            found = torch.zeros_like(inputs)
            for output_sign in output_signs:
                parts = []
                for sign in input_signs:
                    side = _side(inputs, sign) if signed else inputs
                    if weight is None and sign == output_sign:
                        side = side * (1 + self.gamma)  # of a mean all weights are positive
                    parts.append((side, maps[sign, output_sign]))
                chosen = torch.where(output_sign * outputs > 0, relevance, 0)
                found += share(parts, _ratio(chosen))
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


def share(parts: Sequence[Part], scale: Callable[[Tensor], Tensor]) -> Tensor:
    """Share relevance among the inputs of a layer in proportion to their contributions.

    The contributions are those of all `parts`; `scale` returns R_k / d_k from their sums, which it
    may overwrite. Returns relevance in the shape and type of the inputs. A bias of a map is in the
    sums, and so keeps its share.
    """
    total, *more = (part.forward(inputs) for inputs, part in parts)
    for sums in more:
        total += sums
    factors = scale(total)
    found, *others = (part.back(factors, inputs).mul_(inputs) for inputs, part in parts)
    for shares in others:
        found += shares
    return found


def _never_zero(layer: Layer, weight: Tensor) -> LinearMap:
    """Return the map of weights whose sums are denominators, for `_divided`.

    Where a denominator is 0, every contribution to it is 0 too, whatever it is divided by: any
    finite stand-in loses that relevance exactly. On a processor it comes for free as a bias, which
    vanishes beside any other sum. Kernels of other devices may transform their operands, so that
    zeros do not stay exact there.
    """
    if weight.device.type != "cpu":
        return linear_map(layer, weight)
    return linear_map(layer, weight, weight.new_full((layer.channels,), SMALLEST_DENOMINATOR))


def _divided(relevance: Tensor) -> Callable[[Tensor], Tensor]:
    """Return R / d for sums of `_never_zero` maps, on a processor in their place."""

    def scale(total: Tensor) -> Tensor:
        if total.device.type == "cpu":
            return torch.div(relevance, total, out=total)
        return torch.where(total > 0, relevance / total, 0)

    return scale


def _lost_at_zero(relevance: Tensor) -> Callable[[Tensor], Tensor]:
    """Return R / d for denominators of zero or more; relevance is lost where they are zero."""
    return lambda total: _divided(relevance)(
        total.clamp_min_(SMALLEST_DENOMINATOR) if total.device.type == "cpu" else total
    )


def _ratio(relevance: Tensor) -> Callable[[Tensor], Tensor]:
    """Return R / d, and zero where there is no relevance."""
    return lambda total: torch.where(relevance != 0, relevance / total, 0)


def _side(values: Tensor, sign: int) -> Tensor:
    """Return the positive or the negative part."""
    return values.clamp_min(0) if sign > 0 else values.clamp_max(0)

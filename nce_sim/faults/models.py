"""The fault models of Schorn et al. (DATE 2018): dropout and additive Gaussian noise.

Both strike the output of a neuron that is computed on a PE, after its non-linearity and before
pooling, independently for each image.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from numbers import Integral, Real
from typing import ClassVar

import numpy as np
from torch import Tensor

from nce_sim.errors import InputError
from nce_sim.resilience.damage import Means, Objective, Sensitivity


def check_number(value: float, field: str, upper: float | None = None) -> None:
    """Raise InputError unless `value` is a finite number from 0 to `upper`, if there is one."""
    allowed = "a number of at least 0" if upper is None else f"a number from 0 to {upper:g}"
    valid = isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)
    if not valid or value < 0 or (upper is not None and value > upper):
        raise InputError(f"{field} must be {allowed}, not {value}")


def check_whole(value: int, field: str, least: int = 0, most: int | None = None) -> None:
    """Raise InputError unless `value` is a whole number from `least` to `most`, if there is one."""
    allowed = f"of at least {least}" if most is None else f"from {least} to {most}"
    valid = isinstance(value, Integral) and not isinstance(value, bool)
    if not valid or value < least or (most is not None and value > most):
        raise InputError(f"{field} must be a whole number {allowed}, not {value}")


def check_means(means: Mapping[str, float], field: str) -> None:
    """Raise InputError unless `means` maps names of layers to numbers of at least 0."""
    if not isinstance(means, Mapping):
        raise InputError(f"{field} must map each layer's name to a number, not {means!r}")
    for layer, mean in means.items():
        check_number(mean, f"{field} of {layer}")


def check_layers(means: Mapping[str, float], layers: Iterable[str], field: str) -> None:
    """Raise InputError unless `means` knows every layer."""
    missing = [name for name in layers if name not in means]
    if missing:
        raise InputError(f"{field} lacks layer {', '.join(missing)}")


@dataclass(frozen=True)
class Dropout:
    """Each computation on a PE fails with `probability` and then yields zero (section IV-C)."""

    probability: float

    def __post_init__(self) -> None:
        check_number(self.probability, "Dropout: probability", 1)

    @property
    def name(self) -> str:
        """Short name of the kind of fault."""
        return "dropout"

    @property
    def level(self) -> float:
        """The one figure that sets how bad it is."""
        return self.probability

    objective: ClassVar[Objective] = "margin"

    def damage(self, seen: Sensitivity) -> Tensor:
        """Return p x (y x slope)^2: with probability p the output y is displaced by -y.

        This is the mean square of the margin's change, to first order.
        """
        return (seen.output * seen.slope).square_().mul_(self.probability)

    def scores(self, means: Means) -> Means:
        """Return each neuron's share of its layer's damage, as a root mean square.

        Where a share u of what a layer contributes is lost, 1 - u of the signal passes, and layers
        compound: the logarithm of what passes all of them, the sum of log(1 - u), falls by u to
        first order. So a neuron costs its share of its own layer, however large its layer is.
        """
        roots = {name: np.sqrt(mean) for name, mean in means.items()}
        totals = {name: root.sum() for name, root in roots.items()}
        return {name: root / (totals[name] or 1.0) for name, root in roots.items()}

    def __str__(self) -> str:
        return f"dropout p = {self.probability:g}"


@dataclass(frozen=True)
class GaussianNoise:
    """Each output of a PE gets N(0, (sigma x mean)^2) (section IV-D); no ReLU follows.

    `mean_activation` maps each layer's name to the mean of |y| over its neurons and the training
    images, without faults: `nce_sim.accuracy.evaluate.mean_activation` measures it.
    """

    sigma: float
    mean_activation: Mapping[str, float]

    def __post_init__(self) -> None:
        check_number(self.sigma, "GaussianNoise: sigma")
        check_means(self.mean_activation, "GaussianNoise: mean_activation")

    @property
    def name(self) -> str:
        """Short name of the kind of fault."""
        return "noise"

    @property
    def level(self) -> float:
        """The one figure that sets how bad it is."""
        return self.sigma

    objective: ClassVar[Objective] = "loss"

    def damage(self, seen: Sensitivity) -> Tensor:
        """Return (sigma x mean x slope)^2, the variance of the loss's change, to first order.

        The displacement has mean 0 and deviation sigma x mean, so the expected change is 0.
        """
        deviation = self.sigma * self.mean_activation[seen.layer.name]
        return seen.slope.square().mul_(deviation**2)

    def scores(self, means: Means) -> Means:
        """Return the variances themselves: those of independent changes add up, in any layer."""
        return means

    def __str__(self) -> str:
        return f"noise sigma = {self.sigma:g}"


FaultModel = Dropout | GaussianNoise

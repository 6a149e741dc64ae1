"""The non-linearities that a layer can end with, besides ReLU."""

from dataclasses import dataclass
from enum import StrEnum


class Curve(StrEnum):
    """The shape of a non-linearity."""

    RELU = "relu"
    RELU6 = "relu6"
    LEAKY_RELU = "leaky_relu"
    SILU = "silu"
    GELU = "gelu"
    GELU_TANH = "gelu_tanh"


@dataclass(frozen=True)
class Activation:
    """A non-linearity; `slope` is that of a leaky ReLU below zero."""

    curve: Curve
    slope: float = 0.0

    @property
    def rises(self) -> bool:
        """Whether it never falls: it then goes before or after a maximum with the same result."""
        return self.curve in (Curve.RELU, Curve.RELU6) or (
            self.curve is Curve.LEAKY_RELU and self.slope >= 0
        )

    @property
    def may_be_negative(self) -> bool:
        """Whether outputs can be below zero."""
        return self.curve not in (Curve.RELU, Curve.RELU6)

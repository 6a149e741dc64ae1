"""Curves over the rate of faults: straight lines between measured points on a stretched axis.

Rates span decades, and zero is one of them. The axis is linear from zero to the first positive
node and logarithmic above it, without a step between the two: `stretch`.
"""

from math import exp, log

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def stretch(value: float, unit: float) -> float:
    """Return value / unit up to 1, and 1 + log(value / unit) above."""
    ratio = value / unit
    return ratio if ratio <= 1 else 1 + log(ratio)


def shrink(place: float, unit: float) -> float:
    """Return the value that stretches to `place`."""
    return unit * (place if place <= 1 else exp(place - 1))


class FallingCurve:
    """A curve that is linear in the stretched rate; beyond the last node it stays as it is.

    `rates` rise from 0, and there are at least two.
    """

    def __init__(self, rates: Values, values: Values) -> None:
        self.unit, self.values = float(rates[1]), values
        self.places = np.array([stretch(rate, self.unit) for rate in rates.tolist()])

    def at(self, rate: float) -> float:
        """Return the value at a rate."""
        return float(np.interp(stretch(rate, self.unit), self.places, self.values))


class RisingCurve:
    """A curve of straight lines between the stretched rate and the stretched value.

    So values that are proportional to the rate stay so between nodes. `values` never fall, and are
    at least 0; where they are all 0 so is the curve.
    """

    def __init__(self, rates: Values, values: Values) -> None:
        self.unit = float(rates[1])
        positive = values[values > 0]
        self.value_unit = float(positive[0]) if len(positive) else 1.0
        self.places = np.array([stretch(rate, self.unit) for rate in rates.tolist()])
        self.heights = np.array([stretch(value, self.value_unit) for value in values.tolist()])
        self.steps = np.unique(self.heights, return_index=True)[1]

    def at(self, rate: float) -> float:
        """Return the value at a rate."""
        height = np.interp(stretch(rate, self.unit), self.places, self.heights)
        return shrink(float(height), self.value_unit)

    def rate_of(self, value: float) -> float:
        """Return the smallest rate with that value, within the nodes."""
        heights, places = self.heights[self.steps], self.places[self.steps]
        place = np.interp(stretch(value, self.value_unit), heights, places)
        return shrink(float(place), self.unit)

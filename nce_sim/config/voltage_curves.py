"""Curves of failing against supply voltage: pure functions of numbers.

Probabilities come as a `Range`: best figure with its low and high end.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise, product
from typing import NamedTuple

from scipy.special import ndtr, ndtri


class Range(NamedTuple):
    """A figure with both ends of its range."""

    low: float
    best: float
    high: float


NEVER = Range(0.0, 0.0, 0.0)
"""The probability of what cannot happen."""


def bit_failure_probability(voltage_v: float, a: float, b: float, vmin_v: float) -> float:
    """Return the probability that an SRAM cell fails: Phi((a - V/Vmin) / b).

    Each cell fails below a voltage of its own, and these voltages are normally distributed with
    mean `a` and deviation `b` in units of Vmin: the usual model of threshold mismatch
    (Mukhopadhyay, Mahmoodi and Roy, IEEE Transactions on CAD 24(12), 2005). So failures nest: a
    cell that fails at one voltage fails at every lower one.
    """
    return float(ndtr((a - voltage_v / vmin_v) / b))


def delay_ratio(voltage_v: float, nominal_v: float, threshold_v: float, alpha: float) -> float:
    """Return a path's delay relative to that at `nominal_v`, by the alpha-power law.

    Delay is proportional to V / (V - Vth)^alpha (Sakurai and Newton, IEEE Journal of Solid-State
    Circuits 25(2), 1990). The law holds well above the threshold only; for alpha of at least 1
    delay falls with voltage.
    """
    relative_drive = (nominal_v - threshold_v) / (voltage_v - threshold_v)
    return voltage_v / nominal_v * relative_drive**alpha


def late_probability(period_ns: float, mean_ns: float, sigma_ns: float, ratio: float) -> float:
    """Return the probability that the path that a cycle exercises takes longer than the clock.

    At nominal voltage its delay is N(mean, sigma^2); at another, every delay is `ratio` times that.
    """
    return float(ndtr((mean_ns - period_ns / ratio) / sigma_ns))


def interpolate(voltage_v: float, points: Sequence[tuple[float, float]]) -> float:
    """Return the probability between two measured points, linear in the probit domain.

    `points` are (voltage in V, probability), in rising order of voltage, and `voltage_v` lies
    within them. A probability of 0 or 1 has no finite probit: beside it, it holds up to the next
    point.
    """
    for (below_v, below), (above_v, above) in pairwise(points):
        if voltage_v <= above_v:
            share = (voltage_v - below_v) / (above_v - below_v)
            if share in (0, 1):  # also keeps 0 x infinity away
                return above if share else below
            return float(ndtr((1 - share) * ndtri(below) + share * ndtri(above)))
    raise ValueError(f"{voltage_v} V lies outside the points")


def extremes(
    curve: Callable[..., float], best: Sequence[float], ends: Sequence[tuple[float, float]]
) -> Range:
    """Return `curve` of the `best` parameters, and its extremes with each at an end of its range.

    The curves above are monotone in every parameter, so the extremes lie at the ends.
    """
    corners = [curve(*corner) for corner in product(*ends)]
    return Range(min(corners), curve(*best), max(corners))

"""Sums, products and means of figures that have a low, a best and a high end.

Ends go with ends: the low end of a sum takes every term at its low end. These are bounds, not
confidence intervals; they hold however the terms depend on one another.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import product as cartesian
from typing import NamedTuple

from nce_sim.config.voltage_curves import Range

ZERO = Range(0.0, 0.0, 0.0)
ONE = Range(1.0, 1.0, 1.0)


def total(ranges: Iterable[Range]) -> Range:
    """Return the sum, end by end."""
    low = best = high = 0.0
    for each in ranges:
        low, best, high = low + each.low, best + each.best, high + each.high
    return Range(low, best, high)


def product(left: Range, right: Range) -> Range:
    """Return the product of two figures that are not negative."""
    return Range(left.low * right.low, left.best * right.best, left.high * right.high)


def scaled(figure: Range, factor: float) -> Range:
    """Return the figure times a number that is not negative."""
    return Range(figure.low * factor, figure.best * factor, figure.high * factor)


def complement(share: Range) -> Range:
    """Return 1 minus a share: what is left of the high end is the low one."""
    return Range(1 - share.high, 1 - share.best, 1 - share.low)


def sum_of_shares(left: Range, right: Range) -> Range:
    """Return the sum of the shares of two outcomes that exclude one another: at most 1."""
    return Range(*(min(1.0, each) for each in total([left, right])))


class Weight(NamedTuple):
    """An amount times a scale that all weights of the same name share."""

    amount: Range
    name: str
    scale: Range


def weighted_mean(weights: Sequence[Weight], values: Sequence[Range]) -> Range | None:
    """Return the mean of `values` with bounds over all amounts, scales and values in their ranges.

    A scale is the same for all its weights, so that every combination of their ends is tried: the
    mean is monotone in each. Amounts may lie anywhere, whatever the others do. None if all weights
    are zero.
    """
    best_weights = [each.amount.best * each.scale.best for each in weights]
    if sum(best_weights) == 0:
        return None
    best = sum(w * v.best for w, v in zip(best_weights, values, strict=True)) / sum(best_weights)
    ends = [best]
    for amounts in _with_scales(weights):
        ends += _means_above_thresholds(amounts, [value.high for value in values])
        ends += [1 - m for m in _means_above_thresholds(amounts, [1 - v.low for v in values])]
    return Range(min(ends), best, max(ends))


def _with_scales(weights: Sequence[Weight]) -> Iterator[list[Range]]:
    """Yield the amounts times every combination of the scales' ends."""
    scales = {each.name: each.scale for each in weights}
    for ends in cartesian(*((scale.low, scale.high) for scale in scales.values())):
        at = dict(zip(scales, ends, strict=True))
        yield [scaled(each.amount, at[each.name]) for each in weights]


def _means_above_thresholds(weights: Sequence[Range], values: Sequence[float]) -> list[float]:
    """Return the means with large weights on values above a threshold, for every threshold.

    The largest mean of all is among them: a value above it raises it the more it weighs.
    """
    falling = sorted(range(len(values)), key=lambda place: -values[place])
    weight = sum(each.low for each in weights)
    weighted = sum(each.low * value for each, value in zip(weights, values, strict=True))
    found = [weighted / weight] if weight else []
    for place in falling:
        more = weights[place].high - weights[place].low
        weight, weighted = weight + more, weighted + more * values[place]
        if weight:
            found.append(weighted / weight)
    return found

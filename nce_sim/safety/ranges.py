"""Sums, products and means of figures that have a low, a best and a high end.

Ends go with ends: the low end of a sum takes every term at its low end. These are bounds, not
confidence intervals; they hold however the terms depend on one another.
"""

from collections.abc import Iterable, Sequence

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


def weighted_mean(weights: Sequence[Range], values: Sequence[Range]) -> Range | None:
    """Return the mean of `values` with bounds over all weights and values within their ranges.

    Each weight may lie anywhere in its range, whatever the others do. The largest mean has large
    weights on all values above some threshold and small ones on those below; so it is found by
    trying every threshold. None if all weights are zero.
    """
    best_weight = sum(weight.best for weight in weights)
    if best_weight == 0:
        return None
    best = sum(w.best * v.best for w, v in zip(weights, values, strict=True)) / best_weight
    largest = _largest_mean(weights, [value.high for value in values])
    smallest = 1 - _largest_mean(weights, [1 - value.low for value in values])
    return Range(min(smallest, best), best, max(largest, best))


def _largest_mean(weights: Sequence[Range], values: Sequence[float]) -> float:
    falling = sorted(range(len(values)), key=lambda place: -values[place])
    weight = sum(each.low for each in weights)
    weighted = sum(each.low * value for each, value in zip(weights, values, strict=True))
    found = [weighted / weight] if weight else []
    for place in falling:
        more = weights[place].high - weights[place].low
        weight, weighted = weight + more, weighted + more * values[place]
        if weight:
            found.append(weighted / weight)
    return max(found)

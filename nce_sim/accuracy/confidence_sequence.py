"""Betting confidence sequences: intervals for a mean that hold at all looks together.

The capital of a gambler who bets on draws being above a mean m grows only by luck where m is the
true mean: it is a nonnegative martingale, and by Ville's inequality it ever reaches 2 / alpha with
a chance of at most alpha / 2. A second gambler bets on draws being below. The means at which
neither ever got so rich are an interval that may be looked at as often as one likes, and at which
one may stop whenever one likes (Waudby-Smith and Ramdas, Journal of the Royal Statistical Society
B 2024, section 4; their two capitals are hedged by Bonferroni's inequality here).

The bets are tuned for the half-width w at which one wants to stop. Against a mean at distance w
the capital grows fastest, to second order in the bet, at w / variance; draws that are skewed have
another second moment around a mean at that distance, and the bet is that of a 0/1 draw, for which
w / (variance -+ w x skew - w^2) is exact. Variance and skew are those of earlier draws, so that
the bets are predictable. About 2 ln(2 / alpha) variance / w^2 draws are needed: 1.92 times what a
test of fixed size that knew the variance needs at 95 %.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from math import log

import numpy as np
from numpy.typing import NDArray

from nce_sim.accuracy.statistics import CONFIDENCE, Estimate

Floats = NDArray[np.float64]

LOOK_STEP = 16
LOOK_GROWTH = 1.02
"""One looks whenever the draws grew by this factor, and by at least LOOK_STEP."""

PRIOR = 10
"""So many draws of the largest possible variance are thought to come before the first one."""

STAKE = 0.5
"""The share of its capital that a gambler loses at most in one draw."""

ROUNDING = 1e-9
"""An interval that is to be so long is shorter by this share, for whoever rounds its ends."""

HALVINGS = 50
"""Of the range of means: the ends of an interval are exact to the range by 2^50."""


def looks(most: int) -> list[int]:
    """Return the numbers of draws at which one looks, fixed beforehand; the last is `most`."""
    points, at = [], 0
    while at < most:
        steps = max(1, int(at * (LOOK_GROWTH - 1) / LOOK_STEP))
        at = min(most, at + steps * LOOK_STEP)
        points.append(at)
    return points


class ConfidenceSequence:
    """The interval of the mean of independent draws that lie between `low` and `high`.

    `half_widths` are those that bets are tuned for; several share the starting capital equally.
    With `control_mean`, each draw comes with a control between 0 and 1 of that known mean; the
    interval is that of draw - beta x (control - control_mean), which has the same mean and less
    variance where both go together. Beta, between 0 and 1, is predictable like the bets.
    """

    def __init__(
        self,
        half_widths: Sequence[float],
        confidence: float = CONFIDENCE,
        low: float = 0.0,
        high: float = 1.0,
        control_mean: float | None = None,
    ) -> None:
        self.half_widths = np.array(half_widths, float)[:, None]
        self.confidence, self.low, self.high = confidence, low, high
        self.control_mean = control_mean
        self.draws = 0
        self._sums = np.zeros(3)
        self._control_sums = np.zeros(4)
        self._book: _Bets | None = None

    def append(self, values: Floats, controls: Floats | None = None) -> None:
        """Add draws, in order: all that are given at once are bet on alike."""
        weight = self._weight()
        up, down = self._stakes()
        adjusted, low, high = values, self.low, self.high
        if controls is not None and self.control_mean is not None:
            adjusted = values - weight * (controls - self.control_mean)
            low -= weight * (1 - self.control_mean)
            high += weight * self.control_mean
            products = controls, values, controls * values, controls**2
            self._control_sums += [each.sum() for each in products]
        bets = _Bets.on(adjusted, up, down, low, high)
        self._book = bets if self._book is None else self._book.then(bets)
        self._sums += [(adjusted**power).sum() for power in (1, 2, 3)]
        self.draws += len(values)

    def _weight(self) -> float:
        """Return beta: the slope of earlier draws over their controls, drawn towards 0."""
        if self.draws == 0:
            return 0.0
        control, value, product, square = self._control_sums
        slope = product - control * value / self.draws
        spread = square - control**2 / self.draws + PRIOR / 4
        return float(np.clip(slope / spread, 0, 1))

    def _stakes(self) -> tuple[Floats, Floats]:
        """Return the bets on draws above and below a mean, one for each half-width, as a column."""
        first, second, third = self._sums
        mean = first / max(1, self.draws)
        squares = max(0.0, second - first * mean)
        cubes = third - 3 * mean * second + 2 * mean**2 * first
        variance = squares + PRIOR * (self.high - self.low) ** 2 / 4
        skew = cubes / variance
        variance /= self.draws + PRIOR
        away = self.half_widths
        up = away / np.maximum(variance - away * skew - away**2, variance / 4)
        down = away / np.maximum(variance + away * skew - away**2, variance / 4)
        return up, down

    def is_within(self, half_width: float) -> bool:
        """Tell whether the interval is no longer than twice `half_width`.

        That is where some window so long has both its ends excluded. Most of the times a window
        around the mean decides, and the ends need not be found.
        """
        book, threshold = self._all_bets(), log(2 / (1 - self.confidence))
        width = 2 * half_width * (1 - ROUNDING)
        first, last = self.low, self.high - width
        start = float(np.clip(self._sums[0] / self.draws - half_width, first, last))
        for _ in range(HALVINGS):
            low = start <= self.low or book.log_capital_above(start) >= threshold
            high = start >= self.high - width or book.log_capital_below(start + width) >= threshold
            if low == high:
                return low
            first, last = (start, last) if low else (first, start)
            start = (first + last) / 2
        return False

    def estimate(self) -> Estimate:
        """Return the mean (of the adjusted draws) with its interval."""
        mean = float(np.clip(self._sums[0] / self.draws, self.low, self.high))
        book = self._all_bets()
        threshold = log(2 / (1 - self.confidence))
        low = _edge(book.log_capital_above, threshold, self.low, mean)
        high = _edge(book.log_capital_below, threshold, self.high, mean)
        return Estimate(mean, self.draws, low, high, self.confidence)

    def _all_bets(self) -> "_Bets":
        if self._book is None:
            raise ValueError("nothing was drawn yet")
        return self._book


def _edge(
    log_capital: Callable[[float], float], threshold: float, outer: float, inner: float
) -> float:
    """Return the mean where the capital, which falls from `outer` to `inner`, is at the threshold.

    It is `outer` where the capital is too small even there. What is returned is excluded still.
    """
    if log_capital(outer) < threshold:
        return outer
    for _ in range(HALVINGS):
        middle = (outer + inner) / 2
        if log_capital(middle) < threshold:
            inner = middle
        else:
            outer = middle
    return outer


@dataclass(frozen=True)
class _Bets:
    """Distinct draws, how often each came, the bets on them and the range they could have had.

    The bets are half-widths x draws.
    """

    values: Floats
    counts: NDArray[np.int64]
    up: Floats
    down: Floats
    low: Floats
    high: Floats

    @staticmethod
    def on(values: Floats, up: Floats, down: Floats, low: float, high: float) -> "_Bets":
        """Return the same bets on every draw of a block."""
        distinct, counts = np.unique(values, return_counts=True)
        shape = len(up), len(distinct)
        return _Bets(
            distinct, counts, np.broadcast_to(up, shape), np.broadcast_to(down, shape),
            np.full(len(distinct), low), np.full(len(distinct), high),
        )  # fmt: skip

    def then(self, later: "_Bets") -> "_Bets":
        """Return these bets and later ones."""
        pairs = ((getattr(self, each.name), getattr(later, each.name)) for each in fields(self))
        return _Bets(*(np.concatenate(pair, axis=-1) for pair in pairs))

    def log_capital_above(self, mean: float) -> float:
        """Return the logarithm of the capital of bets on draws above `mean`; falls with it."""
        with np.errstate(divide="ignore"):
            stakes = np.minimum(self.up, STAKE / (mean - self.low))
        return self._log_capital(stakes * (self.values - mean))

    def log_capital_below(self, mean: float) -> float:
        """Return the logarithm of the capital of bets on draws below `mean`; rises with it."""
        with np.errstate(divide="ignore"):
            stakes = np.minimum(self.down, STAKE / (self.high - mean))
        return self._log_capital(stakes * (mean - self.values))

    def _log_capital(self, gains: Floats) -> float:
        each = np.log1p(gains) @ self.counts
        return float(np.logaddexp.reduce(each) - log(len(each)))


def estimate_at(
    stop: int, values: Floats, half_widths: Sequence[float], confidence: float, low: float = 0.0
) -> Estimate:
    """Return the interval of the first `stop` draws between `low` and 1, bet on look by look."""
    sequence = ConfidenceSequence(half_widths, confidence, low)
    start = 0
    for end in looks(stop):
        sequence.append(values[start:end])
        start = end
    return sequence.estimate()


BETS = 16
"""Sizes of bets that a mean of a fixed number of draws is tested with."""


def bounded_mean(values: Floats, confidence: float = CONFIDENCE, low: float = 0.0) -> Estimate:
    """Return the mean of a fixed number of independent draws between `low` and 1, with interval.

    The draws need not have the same distribution: the interval is that of the mean of their means.
    With one bet for all draws, fixed beforehand, the expected capital is at most 1 there, by the
    inequality of the means; by Markov's inequality it rarely is 2 / alpha. Bets of several sizes,
    tuned for half-widths from half the range to about what so many draws of the largest variance
    allow at best, share the starting capital.
    """
    finest = STAKE / max(2.0, len(values)) ** 0.5 / 8
    stakes = np.geomspace(finest, STAKE, BETS)[:, None] / (1 - low) * 2
    mean = float(np.clip(values.mean(), low, 1))
    book = _Bets.on(values, stakes, stakes, low, 1.0)
    threshold = log(2 / (1 - confidence))
    return Estimate(
        mean,
        len(values),
        _edge(book.log_capital_above, threshold, low, mean),
        _edge(book.log_capital_below, threshold, 1.0, mean),
        confidence,
    )

"""Intervals for proportions and for their differences at a fixed number of trials or of looks.

Every trial is one inference of an image of a fixed test set under its own random faults. Given
the image, its success is a Bernoulli draw; over a fixed set the number of successes is then a
sum of Bernoulli draws with unequal probabilities, whose variance is at most that of a binomial
with the same mean. Binomial intervals are therefore conservative here.
"""

from dataclasses import dataclass
from math import ceil, pi, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, norm
from scipy.stats import t as student

from nce_sim.errors import InputError

CONFIDENCE = 0.95
FIRST_LOOK = 512


def check_confidence(confidence: float) -> None:
    """Raise InputError unless it is a number between 0 and 1."""
    if not 0 < confidence < 1:
        raise InputError(f"confidence must be above 0 and below 1, not {confidence}")


@dataclass(frozen=True)
class Proportion:
    """A share of `trials` with its interval at `confidence`."""

    successes: int
    trials: int
    low: float
    high: float
    confidence: float

    def __post_init__(self) -> None:
        if not 0 <= self.successes <= self.trials or self.trials < 1:
            raise ValueError(f"{self.successes} successes in {self.trials} trials")

    @property
    def value(self) -> float:
        """The share itself."""
        return self.successes / self.trials

    @property
    def half_width(self) -> float:
        """The larger distance from the share to an end of its interval."""
        return max(self.high - self.value, self.value - self.low)

    def __str__(self) -> str:
        return f"{self.value:.2%} [{self.low:.2%}, {self.high:.2%}]"


@dataclass(frozen=True)
class AdjustedProportion(Proportion):
    """A share of trials that were drawn, as estimated by more than their number of successes."""

    adjusted: float

    @property
    def value(self) -> float:
        """The share as estimated."""
        return self.adjusted

    @property
    def half_width(self) -> float:
        """Half the length of the interval, which need not lie evenly about the share."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Estimate:
    """The mean of values in so many `trials` with its interval at `confidence`."""

    value: float
    trials: int
    low: float
    high: float
    confidence: float

    @property
    def complement(self) -> "Estimate":
        """One minus the mean, with its interval."""
        return Estimate(1 - self.value, self.trials, 1 - self.high, 1 - self.low, self.confidence)

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def clopper_pearson(successes: int, trials: int, confidence: float = CONFIDENCE) -> Proportion:
    """Return the exact binomial interval (Clopper and Pearson, Biometrika 1934)."""
    low, high = _exact(successes, trials, confidence)
    return Proportion(successes, trials, low, high, confidence)


def _exact(successes: float, trials: float, confidence: float) -> tuple[float, float]:
    """Return Clopper and Pearson's interval, also for numbers that are not whole."""
    tail = (1 - confidence) / 2
    low, high = 0.0, 1.0
    if successes > 0:
        low = float(beta.ppf(tail, successes, trials - successes + 1))
    if successes < trials:
        high = float(beta.ppf(1 - tail, successes + 1, trials - successes))
    return low, high


@dataclass(frozen=True)
class Difference:
    """The difference of two proportions over the same trials, with its interval."""

    value: float
    low: float
    high: float
    confidence: float

    def __str__(self) -> str:
        return f"{100 * self.value:+.2f} points [{100 * self.low:+.2f}, {100 * self.high:+.2f}]"


def paired_difference(
    only_first: int, only_second: int, trials: int, confidence: float = CONFIDENCE
) -> Difference:
    """Return first minus second from the trials in which just one of the two succeeded.

    The interval is that of Agresti and Min (Statistics in Medicine 2005): Wald's, with half a
    trial added to each of the four cells, so that it has a width even where the two never differ.
    """
    first, second, total = only_first + 0.5, only_second + 0.5, trials + 2
    centre = (first - second) / total
    deviation = sqrt(first + second - (first - second) ** 2 / total) / total
    reach = float(norm.ppf((1 + confidence) / 2)) * deviation
    value = (only_first - only_second) / trials
    return Difference(
        value, min(value, max(-1.0, centre - reach)), max(value, min(1.0, centre + reach)),
        confidence,
    )  # fmt: skip


def mean_difference(values: NDArray[np.float64], confidence: float = CONFIDENCE) -> Difference:
    """Return the mean of paired differences with Student's interval; `values` has one a trial."""
    if len(values) < 2:
        raise ValueError("a mean of fewer than two differences has no interval")
    mean = float(values.mean())
    deviation = float(values.std(ddof=1)) / sqrt(len(values))
    reach = float(student.ppf((1 + confidence) / 2, len(values) - 1)) * deviation
    return Difference(mean, mean - reach, mean + reach, confidence)


def planned_size(
    population: int, margin: float, share: float = 0.5, confidence: float = CONFIDENCE
) -> int:
    """Return how many of `population` faults to inject for a share to be known within +- `margin`.

    `share` is the expected one; 0.5 is the worst case. A planning aid, n = N / (1 + e^2 (N - 1) /
    (t^2 p (1 - p))) of Leveugle et al. (DATE 2009): the interval of what was then measured tells
    what is known. Raises InputError for numbers that are not possible.
    """
    check_confidence(confidence)
    if population < 1:
        raise InputError(f"population must be at least 1, not {population}")
    for name, given in (("margin", margin), ("share", share)):
        if not 0 < given < 1:
            raise InputError(f"{name} must be above 0 and below 1, not {given}")
    quantile = float(norm.ppf((1 + confidence) / 2))
    spread = quantile**2 * share * (1 - share)
    return ceil(population / (1 + margin**2 * (population - 1) / spread))


def look_points(most: int, first: int = FIRST_LOOK) -> list[int]:
    """Return the numbers of trials at which one looks: `first`, twice as many ... `most`."""
    points = []
    while first < most:
        points.append(first)
        first *= 2
    return [*points, most]


def look_confidence(look: int, confidence: float = CONFIDENCE) -> float:
    """Return the confidence of the interval at look 1, 2 ... so that all hold together.

    The errors allowed at the looks, 6 / (pi k)^2 of the total at look k, sum to the total: by
    Bonferroni's inequality the interval at whichever look one stops is valid.
    """
    return 1 - (1 - confidence) * 6 / (pi * look) ** 2


def clustered(
    successes: NDArray[np.int64], size: int, confidence: float = CONFIDENCE
) -> Proportion:
    """Return the mean share over realisations, each with `successes` of `size` dependent trials.

    The sample are the realisations: images that share one realisation of the faults say little more
    about other realisations than one image does. The interval is that of Korn and Graubard (Survey
    Methodology 1998): Clopper and Pearson's for as many independent trials as would make the mean
    as uncertain as the realisations make it, fewer where these are few. Student's t of the shares
    would miss too often, since shares near 0 or 1 are skewed. Where a few realisations hold most of
    the successes or failures, so that a sample easily misses all of them, it misses more often too.

    Where all shares are equal, they say nothing of their spread; the interval then is what is left
    if a share of the realisations as large as Clopper and Pearson's bound for none in as many
    behaved otherwise. A single realisation has no interval but [0, 1].
    """
    count, total = len(successes), int(successes.sum())
    if count < 1 or size < 1 or successes.min() < 0 or successes.max() > size:
        raise ValueError(f"{successes} successes of {count} realisations with {size} trials each")
    mean = total / (size * count)
    if count == 1:
        low, high = 0.0, 1.0
    elif (successes == successes[0]).all():
        unseen = _exact(0, count, confidence)[1]
        low, high = mean * (1 - unseen), mean + (1 - mean) * unseen
    else:
        variance = float((successes / size).var(ddof=1)) / count
        level = (1 + confidence) / 2
        scarce = float(norm.ppf(level) / student.ppf(level, count - 1)) ** 2
        trials = mean * (1 - mean) / variance * scarce
        low, high = _exact(mean * trials, trials, confidence)
        low, high = min(low, mean), max(high, mean)
    return Proportion(total, size * count, low, high, confidence)

"""Accuracy and mismatches as measured over split and rate of faults, and what lies between.

Between the measured rates both are interpolated on stretched axes (see `curves`), between shares of
dead lanes linearly; beyond what was measured the last value holds. More faults cannot be better:
where noise made accuracy rise or mismatches fall with the rate, isotonic regression levels the
curve first (Barlow and others, 1972). How wrong the interpolation is was measured at rates that
took no part in it.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from hashlib import sha256
from math import sqrt
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from nce_sim.accuracy.statistics import CONFIDENCE, Proportion, clopper_pearson
from nce_sim.errors import InputError
from nce_sim.faults.table import Counts
from nce_sim.files import write_atomically
from nce_sim.runtime.curves import FallingCurve, RisingCurve

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Deviation:
    """How far interpolated values lie from those measured between them.

    `largest` and `mean` of the absolute deviations, each with its standard error from sampling: a
    deviation that is not much larger than that is noise.
    """

    largest: float
    largest_error: float
    mean: float
    mean_error: float

    def __str__(self) -> str:
        return (
            f"mean {self.mean:.2%} +- {self.mean_error:.2%}, "
            f"largest {self.largest:.2%} +- {self.largest_error:.2%}"
        )


@dataclass(frozen=True, eq=False)
class Surface:
    """Counts of right answers and mismatches: splits x shares of dead lanes x rates.

    `fractions` are the unprotected shares of the splits, in the grid's order; `dead_shares` and
    `rates` (of one lane and cycle) rise from 0. Each node has `inferences` inferences, in each of
    which all `unprotected` computations of the split were checked. `held_rates` lie between the
    nodes; `about` names network, splits, faults and seed as JSON. Counts are int64.
    Raises InputError for axes and counts that do not fit each other.
    """

    about: str
    fractions: Values
    dead_shares: Values
    rates: Values
    inferences: int
    unprotected: Counts
    right: Counts
    mismatches: Counts
    held_rates: Values
    held_right: Counts
    held_mismatches: Counts

    def __post_init__(self) -> None:
        check_rates(self.rates)
        _check_rising(self.dead_shares, "dead_shares")
        if self.dead_shares[-1] > 1:
            raise InputError(f"a surface's dead_shares are at most 1, not {self.dead_shares[-1]}")
        nodes = len(self.fractions), len(self.dead_shares)
        expected = {
            "unprotected": nodes[:1],
            **dict.fromkeys(("right", "mismatches"), (*nodes, len(self.rates))),
            **dict.fromkeys(("held_right", "held_mismatches"), (*nodes, len(self.held_rates))),
        }
        for name, shape in expected.items():
            counts = getattr(self, name)
            if counts.shape != shape or counts.dtype != np.int64 or counts.min(initial=0) < 0:
                raise InputError(f"a surface's '{name}' are {shape} whole numbers of at least 0")
        if self.inferences < 1 or max(self.right.max(), self.held_right.max(initial=0)) > (
            self.inferences
        ):
            raise InputError("a surface's right answers are as many as its inferences at most")

    @cached_property
    def identity(self) -> str:
        """SHA-256 of all that was measured."""
        digest = sha256()
        for each in fields(self):
            value = getattr(self, each.name)
            digest.update(
                value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode()
            )
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Surface) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)

    def accuracy(self, point: int, rate: float, dead_share: float = 0.0) -> float:
        """Return the share of right answers with a split at a rate."""
        return self._curves(point, dead_share)[0].at(rate)

    def mismatches_per_check(self, point: int, rate: float, dead_share: float = 0.0) -> float:
        """Return the mismatches per checked computation with a split at a rate."""
        return self._curves(point, dead_share)[1].at(rate)

    def rate_of(self, mismatches_per_check: float, point: int, dead_share: float = 0.0) -> float:
        """Return the rate at which so many checks differ: from 0 to the largest measured one.

        Where several rates have that many it is the smallest; with no unprotected lane at work
        nothing can be told, and it is 0.
        """
        return self._curves(point, dead_share)[1].rate_of(mismatches_per_check)

    def measured(
        self, point: int, rate: int, dead_share: int = 0, confidence: float = CONFIDENCE
    ) -> Proportion:
        """Return the share of right answers that was counted at a node, with its interval.

        `rate` and `dead_share` are places on the axes.
        """
        return clopper_pearson(
            int(self.right[point, dead_share, rate]), self.inferences, confidence
        )

    @cached_property
    def accuracy_error(self) -> Deviation:
        """Deviation of the accuracy at the held-out rates, as a difference of shares.

        The standard error takes the interpolated value to be as uncertain as the measured one, and
        independent of it; as both meet the same faults, it is rather smaller.
        """
        share = self.held_right / self.inferences
        level = (self.held_right + 1) / (self.inferences + 2)
        errors = np.sqrt(2 * level * (1 - level) / self.inferences)
        return _deviation(self._at_held_rates(0) - share, errors)

    @cached_property
    def mismatch_error(self) -> Deviation:
        """Deviation of the mismatches per check at the held-out rates, relative to what was found.

        Standard errors are those of Poisson counts, as for `accuracy_error`. Nodes without any
        mismatch take no part.
        """
        seen = self.held_mismatches > 0
        share = self.held_mismatches / np.maximum(self.inferences * self._all_unprotected, 1)
        relative = self._at_held_rates(1)[seen] / share[seen] - 1
        return _deviation(relative, np.sqrt(2 / self.held_mismatches[seen]))

    def save(self, path: Path) -> None:
        """Write the surface as an .npz file without pickled objects."""
        archive = io.BytesIO()
        np.savez(archive, **{each.name: getattr(self, each.name) for each in fields(self)})
        write_atomically(path, archive.getvalue())

    @staticmethod
    def load(path: Path) -> "Surface":
        """Read a surface; raise InputError for a file that is none."""
        try:
            with np.load(path, allow_pickle=False) as archive:
                found = {each.name: archive[each.name] for each in fields(Surface)}
            about, count = str(found.pop("about")[()]), int(found.pop("inferences")[()])
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as reason:
            raise InputError(f"{path} is no surface of accuracy: {reason}") from reason
        return Surface(about=about, inferences=count, **found)

    def __str__(self) -> str:
        return (
            f"{len(self.fractions)} splits x {len(self.dead_shares)} shares of dead lanes x "
            f"{len(self.rates)} rates, {self.inferences:,} inferences each; interpolated accuracy "
            f"is off by {self.accuracy_error}"
        )

    @property
    def _all_unprotected(self) -> Counts:
        return self.unprotected[:, None, None]

    @cached_property
    def _levelled(self) -> tuple[Values, Values]:
        """Both measured shares, made to fall and to rise with the rate."""
        accuracy = self.right / self.inferences
        found = self.mismatches / np.maximum(self.inferences * self._all_unprotected, 1)
        return _monotone(accuracy, increasing=False), _monotone(found, increasing=True)

    @cached_property
    def _made(self) -> dict[tuple[int, float], tuple[FallingCurve, RisingCurve]]:
        return {}

    def _curves(self, point: int, dead_share: float) -> tuple[FallingCurve, RisingCurve]:
        """Return the curves of accuracy and mismatches of a split and a share of dead lanes."""
        key = point, dead_share
        if key not in self._made:
            if len(self._made) >= MOST_CURVES:
                self._made.clear()
            accuracy, mismatches = (
                _between(self.dead_shares, each[point], dead_share) for each in self._levelled
            )
            self._made[key] = (
                FallingCurve(self.rates, accuracy), RisingCurve(self.rates, mismatches)
            )  # fmt: skip
        return self._made[key]

    def _at_held_rates(self, which: int) -> Values:
        """Return the interpolated accuracies (0) or mismatches (1) at all held-out rates."""
        found = np.empty(self.held_right.shape)
        for point, dead, rate in np.ndindex(found.shape):
            curve = self._curves(point, float(self.dead_shares[dead]))[which]
            found[point, dead, rate] = curve.at(float(self.held_rates[rate]))
        return found


MOST_CURVES = 4096
"""Curves of one split and share of dead lanes that are remembered."""


def held_out_rates(rates: Values) -> Values:
    """Return one rate between each two: their geometric mean, and half of the first above 0."""
    check_rates(rates)
    return np.array([rates[1] / 2, *np.sqrt(rates[1:-1] * rates[2:])])


def log_rates(lowest: float, highest: float, a_decade: int) -> Values:
    """Return 0, and rates from `lowest` to `highest` so many a decade, evenly on a log axis.

    Raises InputError unless 0 < lowest < highest and there is at least one a decade.
    """
    if not 0 < lowest < highest < float("inf") or a_decade < 1:
        raise InputError(
            f"rates rise from a lowest above 0 to a highest, at least 1 a decade: not {lowest} to "
            f"{highest}, {a_decade} a decade"
        )
    steps = max(1, round(a_decade * float(np.log10(highest / lowest))))
    return np.concatenate([[0.0], np.geomspace(lowest, highest, steps + 1)])


def check_rates(rates: Values) -> None:
    """Raise InputError unless rates are numbers that rise from 0, two at least."""
    _check_rising(rates, "rates")
    if len(rates) < 2:
        raise InputError("a surface's rates are 0 and at least one other")


def _check_rising(values: Values, name: str) -> None:
    rises = values.ndim == 1 and len(values) and values[0] == 0 and (np.diff(values) > 0).all()
    if not rises or not np.isfinite(values).all():
        raise InputError(f"a surface's {name} must be numbers that rise from 0, not {values}")


def _monotone(values: Values, increasing: bool) -> Values:
    """Level curves along the last axis, where they do not rise, or fall, as they should."""
    found = np.empty_like(values)
    for place in np.ndindex(values.shape[:-1]):
        found[place] = isotonic_regression(values[place], increasing=increasing).x
    return found


def _between(axis: Values, curves: Values, place: float) -> Values:
    """Return the curve at a place on the first axis, linearly between those measured."""
    return np.array([np.interp(place, axis, column) for column in curves.T])


def _deviation(differences: Values, errors: Values) -> Deviation:
    """Return the deviation of some nodes; without any it is 0."""
    if not differences.size:
        return Deviation(0.0, 0.0, 0.0, 0.0)
    off, errors = np.abs(differences).ravel(), errors.ravel()
    worst = int(off.argmax())
    mean_error = sqrt(float((errors**2).sum())) / off.size
    return Deviation(float(off[worst]), float(errors[worst]), float(off.mean()), mean_error)


def about_surface(**parts: str | int | Sequence[str]) -> str:
    """Return a description of what a surface was measured on, as JSON with sorted keys."""
    return json.dumps(parts, sort_keys=True)

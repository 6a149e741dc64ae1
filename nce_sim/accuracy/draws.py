"""How harmful the answers of one variant were, draw by draw: what paired comparisons need."""

import json
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from nce_sim.accuracy.confidence_sequence import bounded_mean, estimate_at
from nce_sim.accuracy.outcomes import TOP1
from nce_sim.accuracy.statistics import Difference, Estimate, paired_difference

FINER = (1.0, 0.5, 0.25, 0.125)
"""Half-widths, as multiples of the asked one, that the bets on the other rates are tuned for."""


Places = NDArray[np.int64]


def images_of(units: Places, unit: int) -> Places:
    """Return the places of the images of units, in order."""
    return (units[:, None] * unit + np.arange(unit)).ravel()


@dataclass(frozen=True)
class Sampled:
    """What was drawn when sampling ended by itself.

    `places` are the units drawn, in order: unit p holds the images from p x `unit` on. `mean` is
    the confidence sequence of the mean harm, tuned for `half_width`.
    """

    half_width: float
    unit: int
    places: Places
    mean: Estimate

    def shares_draws_with(self, other: "Sampled") -> bool:
        """Tell whether one of both sequences of draws begins with the other."""
        count = min(len(self.places), len(other.places))
        return self.unit == other.unit and np.array_equal(self.places[:count], other.places[:count])


@dataclass(frozen=True)
class Draws:
    """The harm of every unit of images by one `outcome`, in the order of the draws.

    `sampled` is None where their number was fixed.
    """

    outcome: str
    confidence: float
    harms: NDArray[np.float64]
    sampled: Sampled | None

    def minus(self, other: "Draws") -> Difference:
        """Return how much less harm was done than in others that met the same draws.

        Two that ended their sampling at different draws are compared over those that both have:
        which of two stops first is known when it stops, so that a confidence sequence of the
        differences holds. Raises ValueError for other draws.
        """
        if self.outcome != other.outcome:
            raise ValueError(f"'{self.outcome}' and '{other.outcome}' cannot be compared")
        if self.sampled is not None and other.sampled is not None:
            return self._minus_sampled(other, self.sampled, other.sampled)
        if len(self.harms) != len(other.harms) or self.sampled is not other.sampled:
            raise ValueError("a paired difference needs the same images and draws")
        gains = other.harms - self.harms
        if self.outcome != TOP1.name:
            return _difference(bounded_mean(gains, self.confidence, low=-1.0))
        return paired_difference(
            int((gains > 0).sum()), int((gains < 0).sum()), len(gains), self.confidence
        )

    def _minus_sampled(self, other: "Draws", mine: Sampled, theirs: Sampled) -> Difference:
        if not mine.shares_draws_with(theirs):
            raise ValueError("a paired difference needs the same images and draws")
        count = min(len(self.harms), len(other.harms))
        finest = min(mine.half_width, theirs.half_width)
        return _difference(
            estimate_at(
                count, other.harms[:count] - self.harms[:count], [finest * f for f in FINER],
                self.confidence, low=-1.0,
            )
        )  # fmt: skip

    def to_bytes(self) -> bytes:
        """Return the draws as a NumPy archive."""
        told = {"outcome": self.outcome, "confidence": self.confidence}
        held: dict[str, NDArray[np.generic]] = {"harms": self.harms}
        if self.sampled is not None:
            mean = self.sampled.mean
            told |= {
                "half_width": self.sampled.half_width, "unit": self.sampled.unit,
                "mean": [mean.value, mean.trials, mean.low, mean.high, mean.confidence],
            }  # fmt: skip
            held["places"] = self.sampled.places
        archive = BytesIO()
        np.savez_compressed(archive, told=np.array(json.dumps(told)), **held)  # type: ignore[arg-type]
        return archive.getvalue()

    @staticmethod
    def of(content: bytes) -> "Draws":
        """Return the draws that `to_bytes` wrote."""
        with np.load(BytesIO(content), allow_pickle=False) as archive:
            told = json.loads(str(archive["told"]))
            harms, places = archive["harms"], archive.get("places")
        sampled = None
        if places is not None:
            sampled = Sampled(told["half_width"], told["unit"], places, Estimate(*told["mean"]))
        return Draws(told["outcome"], told["confidence"], harms, sampled)


def _difference(mean: Estimate) -> Difference:
    return Difference(mean.value, mean.low, mean.high, mean.confidence)

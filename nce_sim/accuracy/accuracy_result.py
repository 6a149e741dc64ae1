"""The accuracy of one variant under faults, and the rates and harm beside it."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nce_sim.accuracy.answers import NOT_FINITE, Answers
from nce_sim.accuracy.confidence_sequence import estimate_at
from nce_sim.accuracy.draws import FINER, Draws, Sampled, images_of
from nce_sim.accuracy.outcomes import TOP1, Outcome, judged
from nce_sim.accuracy.statistics import (
    CONFIDENCE,
    AdjustedProportion,
    Difference,
    Estimate,
    Proportion,
    clopper_pearson,
)


@dataclass(frozen=True)
class AccuracyResult:
    """Top-1 accuracy of one variant on a fixed test set under random faults.

    `sdc` is the share of inferences whose top-1 differs from the fault-free network's (SDC-1),
    `critical_sdc` of those that were right without faults and are wrong with them, `not_finite`
    of those with NaN or infinite outputs: no checker sees them, so they count as wrong and as
    silent. Each has its interval.
    There are two baselines: `fault_free` is the network without faults in `precision`, and
    `float_reference` in float32, None where that is the same or was not computed.
    `right` tells for each inference whether it was right, in the order of the draws.

    `harm` is the mean of what `outcome` calls harmful, one minus the accuracy where that is a
    wrong answer, and `harms` its values by unit of images, in the order of the draws.
    `fault_free_harm` is the mean over all images without faults.

    Where the number of draws was fixed, `sampled` is None and the rates have Clopper and Pearson's
    intervals. Where it was not, all intervals are confidence sequences, valid at any look: that of
    `harm` is tuned for the asked half-width and uses the known fault-free harm of the images as a
    control variate; those of the other rates are their own and may be wider. The value of `harm`,
    and of `correct` where a wrong answer is the harm, is the adjusted mean; the interval is at most
    twice the asked half-width long, but need not lie evenly about it.
    """

    correct: Proportion
    fault_free: Proportion
    sdc: Proportion
    critical_sdc: Proportion
    not_finite: Proportion
    precision: str
    half_width_reached: bool
    right: NDArray[np.bool_]
    harm: Estimate
    harms: NDArray[np.float64]
    fault_free_harm: float
    outcome: str = TOP1.name
    float_reference: Proportion | None = None
    due: Proportion | None = None
    sampled: Sampled | None = None

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.correct.value

    @property
    def interval(self) -> tuple[float, float]:
        """Interval of `accuracy` at `correct.confidence`."""
        return (self.correct.low, self.correct.high)

    def with_harms(
        self, outcome: str, harms: NDArray[np.float64], harm: Estimate, fault_free_harm: float
    ) -> "AccuracyResult":
        """Return the result of a fixed number of draws with what another outcome says of them."""
        return replace(
            self, outcome=outcome, harm=harm, harms=harms, fault_free_harm=fault_free_harm
        )

    def minus(self, other: "AccuracyResult") -> Difference:
        """Return how much less harm this variant does than one on the same draws.

        That is how much more accurate it is, where a wrong answer is the harm. Two that ended
        their sampling at different draws are compared over those that both have: which of two
        stops first is known when it stops, so that a confidence sequence of the differences holds.
        """
        return self.draws.minus(other.draws)

    @property
    def draws(self) -> Draws:
        """What was drawn, and how harmful each answer was."""
        return Draws(self.outcome, self.correct.confidence, self.harms, self.sampled)

    def summary(self) -> dict[str, float]:
        """Return the rates with the ends of their intervals as plain data.

        The harm is among them where it is anything but a wrong answer.
        """
        rates: dict[str, Proportion | Estimate] = {
            "accuracy": self.correct,
            "fault_free": self.fault_free,
            "sdc": self.sdc,
            "critical_sdc": self.critical_sdc,
            "not_finite": self.not_finite,
        }
        if self.float_reference is not None:
            rates["float_reference"] = self.float_reference
        if self.outcome != TOP1.name:
            rates["harm"] = self.harm
        found: dict[str, float] = {"inferences": self.correct.trials}
        for name, rate in rates.items():
            found |= {name: rate.value, f"{name}_low": rate.low, f"{name}_high": rate.high}
        return found

    def __str__(self) -> str:
        baselines = f"fault-free {self.fault_free.value:.2%}"
        if self.float_reference is not None:
            baselines += f" in {self.precision}, {self.float_reference.value:.2%} in float32"
        harm = "" if self.outcome == TOP1.name else f"harm {self.harm} ({self.outcome}), "
        return (
            f"{harm}accuracy {self.correct} ({100 * self.correct.confidence:.4g}% interval, "
            f"{self.correct.trials:,} inferences, {baselines})"
        )


def harm_of_wrong_answers(correct: Proportion) -> Estimate:
    """Return the share of wrong answers from that of right ones."""
    return Estimate(
        correct.value, correct.trials, correct.low, correct.high, correct.confidence
    ).complement


@dataclass(frozen=True)
class _Events:
    """What happened in each inference."""

    right: NDArray[np.bool_]
    changed: NDArray[np.bool_]
    lost: NDArray[np.bool_]
    not_finite: NDArray[np.bool_]

    @staticmethod
    def of(
        predicted: NDArray[np.int16], fault_free: NDArray[np.int16], truth: NDArray[np.int64]
    ) -> "_Events":
        """Return the events of inferences whose fault-free answer and label are given."""
        changed = predicted != fault_free
        return _Events(
            predicted == truth, changed, changed & (fault_free == truth), predicted == NOT_FINITE
        )

    def but(self, detected: NDArray[np.bool_]) -> "_Events":
        """Return the events if inferences that were given up are no silent errors."""
        silent = ~detected
        return _Events(
            self.right & silent, self.changed & silent, self.lost & silent,
            self.not_finite & silent,
        )  # fmt: skip


def judge(
    predicted: NDArray[np.int16],
    clean: NDArray[np.int16],
    labels: Tensor,
    order: NDArray[np.intp],
    precision: str,
    confidence: float = CONFIDENCE,
) -> AccuracyResult:
    """Turn a fixed number of predictions into rates; `order` gives the image of each."""
    events = _Events.of(predicted, clean[order], labels.numpy()[order])

    def rate(events: NDArray[np.bool_]) -> Proportion:
        return clopper_pearson(int(events.sum()), len(events), confidence)

    correct = rate(events.right)
    return AccuracyResult(
        correct=correct,
        fault_free=rate(clean == labels.numpy()),
        sdc=rate(events.changed),
        critical_sdc=rate(events.lost),
        not_finite=rate(events.not_finite),
        precision=precision,
        half_width_reached=True,
        right=events.right,
        harm=harm_of_wrong_answers(correct),
        harms=(~events.right).astype(float),
        fault_free_harm=float((clean != labels.numpy()).mean()),
    )


def judge_drawn(
    answers: Answers, clean: Answers, labels: NDArray[np.int64], sampled: Sampled, reached: bool,
    precision: str, confidence: float, outcome: Outcome, detected: NDArray[np.bool_] | None = None,
) -> AccuracyResult:  # fmt: skip
    """Turn the answers for images that were drawn until one could stop into rates.

    What happened in the images of one draw is averaged first: they were drawn together. `detected`
    tells which inferences the hardware gave up, if it can: their class is NOT_FINITE.
    """
    order = images_of(sampled.places, sampled.unit)
    events = _Events.of(answers.classes, clean.classes[order], labels[order])
    if detected is not None:
        events = events.but(detected)
    half_widths = [sampled.half_width * factor for factor in FINER]

    def rate(events: NDArray[np.bool_]) -> Proportion:
        shares = events.reshape(-1, sampled.unit).mean(axis=1)
        return _proportion(events, estimate_at(len(shares), shares, half_widths, confidence))

    harm = sampled.mean
    top1 = outcome.name == TOP1.name
    fault_free = clean.classes == labels
    return AccuracyResult(
        correct=_proportion(events.right, harm.complement) if top1 else rate(events.right),
        fault_free=clopper_pearson(int(fault_free.sum()), len(fault_free), confidence),
        sdc=rate(events.changed),
        critical_sdc=rate(events.lost),
        not_finite=rate(events.not_finite),
        precision=precision,
        half_width_reached=reached,
        right=events.right,
        harm=harm,
        harms=judged(outcome, answers, labels[order]),
        fault_free_harm=float(judged(outcome, clean, labels).mean()),
        outcome=outcome.name,
        sampled=sampled,
        due=None if detected is None else rate(detected),
    )


def _proportion(events: NDArray[np.bool_], mean: Estimate) -> Proportion:
    return AdjustedProportion(
        int(events.sum()), len(events), mean.low, mean.high, mean.confidence, mean.value
    )

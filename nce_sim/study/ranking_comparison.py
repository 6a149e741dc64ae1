"""The scoreboard of rankings: how much accuracy the splits of each lose under the same faults.

One figure of merit sums a ranking up: the area between its curve of accuracy over the unprotected
fraction and the fault-free accuracy, divided by the width of the curve. It is the accuracy that a
split loses on average over the fractions. All rankings meet the same images and the same random
faults, so that their differences are paired.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nce_sim.accuracy.confidence_sequence import bounded_mean
from nce_sim.accuracy.evaluate import Predictions, Variant, predict_variants
from nce_sim.accuracy.exhaustive import ExhaustiveDamage, Measure, exhaustive_damage
from nce_sim.accuracy.outcomes import TOP1, Outcome, check_outcome, judged
from nce_sim.accuracy.statistics import (
    CONFIDENCE,
    Difference,
    Estimate,
    Proportion,
    clopper_pearson,
    mean_difference,
    paired_difference,
)
from nce_sim.errors import InputError
from nce_sim.faults.models import FaultModel
from nce_sim.faults.ranking_in_loop import IN_LOOP, STEPS, rank_in_loop
from nce_sim.resilience.ranking import METHODS, Ranking, rank
from nce_sim.resilience.split import check_fraction
from nce_sim.workload.datasets import Dataset
from nce_sim.workload.graph import Workload

Stage = Callable[[str, int], Callable[[int], None]]
"""Told (what begins, number of steps); returns the function that is told the steps done."""

BY_KIND = ("fault-aware",)
"""Methods whose order depends on the kind of fault, not on how bad it is."""

EXHAUSTIVE: Mapping[str, Measure] = {"exhaustive-loss": "loss", "exhaustive-margin": "margin"}
"""Ground truth by striking every neuron in turn: affordable for small networks."""

COMPARED = (*METHODS, IN_LOOP, *EXHAUSTIVE)
"""All that can be compared."""


@dataclass(frozen=True)
class ComparisonPlan:
    """What is compared, on the first images of each part of the data.

    `methods` are names of `COMPARED`, or of `saved` rankings.
    `reference` is the method that all others are held against; it is one of `methods`.
    `outcome` says how harmful an answer is: what is compared is one minus the mean harm, the
    accuracy unless it says otherwise.
    Raises InputError for unknown or repeated methods, and for fractions that are none or do not
    rise.
    """

    methods: tuple[str, ...]
    faults: tuple[FaultModel, ...]
    fractions: tuple[float, ...]
    realisations: int = 1
    seed: int = 0
    reference: str = "lrp"
    precision: str = "float32"
    device: str = "cpu"
    confidence: float = CONFIDENCE
    saved: Mapping[str, Ranking] = field(default_factory=dict)
    outcome: Outcome = TOP1

    def __post_init__(self) -> None:
        check_outcome(self.outcome)
        for name in self.methods:
            if name not in (*COMPARED, *self.saved):
                raise InputError(
                    f"unknown ranking method '{name}': known are {', '.join(COMPARED)}"
                )
        if len(set(self.methods)) < len(self.methods) or len(self.methods) < 2:
            raise InputError("compare at least two methods, each once")
        if self.reference not in self.methods:
            raise InputError(
                f"the reference is '{self.reference}': compare it too, or name one of "
                f"{', '.join(self.methods)}"
            )
        if not self.faults:
            raise InputError("compare under at least one fault, such as dropout=0.5")
        for fraction in self.fractions:
            check_fraction(fraction, "fractions")
        if list(self.fractions) != sorted(set(self.fractions)) or not any(self.fractions):
            raise InputError("fractions must rise, and reach above 0")

    @property
    def measure(self) -> str:
        """What is compared, in a word or two: the accuracy, or a score that the outcome defines."""
        return "accuracy" if self.outcome.name == TOP1.name else "score"

    @property
    def weights(self) -> NDArray[np.float64]:
        """Weight of each fraction in the area, by the trapezoidal rule.

        The curve begins at fraction 0, where nothing is lost; the area is divided by its width.
        """
        ends = np.array((0.0, *self.fractions))
        widths = np.diff(ends)
        weights = widths / 2
        weights[:-1] += widths[1:] / 2
        return weights / ends[-1]


@dataclass(frozen=True)
class Cell:
    """What one method's split scores under one fault: accuracy, or one minus another mean harm.

    `gain` is what it has over the reference's split, with an interval that holds together with
    those of all other cells (Bonferroni); None for the reference itself.
    """

    fault: FaultModel
    method: str
    fraction: float
    correct: Proportion | Estimate
    gain: Difference | None


@dataclass(frozen=True)
class Score:
    """One method under one fault.

    `lost` is the accuracy (or other score) that its splits lose on average, the figure of merit:
    less is better. `gain` is how much less that is than the reference's, with an interval that
    holds together with those of all other scores; None for the reference itself.
    """

    fault: FaultModel
    method: str
    lost: Difference
    gain: Difference | None
    ranking: Ranking


@dataclass(frozen=True)
class Comparison:
    """What was found. `unit_scores` is faults x methods x fractions x realisations x units.

    A unit are the images that the outcome judges together, and its score one minus its harm: 1 for
    a right answer and 0 for a wrong one unless the outcome says otherwise. `clean_scores` are
    those without faults; `rankings` has one ranking for each fault of the plan.
    """

    network: Workload
    plan: ComparisonPlan
    data: str
    rankings: Mapping[str, tuple[Ranking, ...]]
    unit_scores: NDArray[np.float64]
    clean_scores: NDArray[np.float64]

    @property
    def fault_free(self) -> Proportion | Estimate:
        """Accuracy (or other score) without faults."""
        return _mean(self.clean_scores, CONFIDENCE)

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Every fault, method and fraction, in the order of the plan."""
        plan = self.plan
        others = len(plan.methods) - 1
        held = _together(plan.confidence, len(plan.faults) * others * len(plan.fractions))
        reference = plan.methods.index(plan.reference)
        cells = []
        for f, fault in enumerate(plan.faults):
            for m, method in enumerate(plan.methods):
                for x, fraction in enumerate(plan.fractions):
                    mine = self.unit_scores[f, m, x].ravel()
                    gain = _gain(mine, self.unit_scores[f, reference, x].ravel(), held)
                    correct = _mean(mine, plan.confidence)
                    cells.append(
                        Cell(fault, method, fraction, correct, None if m == reference else gain)
                    )
        return tuple(cells)

    @cached_property
    def scores(self) -> tuple[Score, ...]:
        """Every fault and method, in the order of the plan."""
        plan = self.plan
        held = _together(plan.confidence, len(plan.faults) * (len(plan.methods) - 1))
        reference = plan.methods.index(plan.reference)
        lost = self._lost_by_unit()
        return tuple(
            Score(
                fault,
                method,
                mean_difference(lost[f, m], plan.confidence),
                None if m == reference else mean_difference(lost[f, reference] - lost[f, m], held),
                self.rankings[method][f],
            )
            for f, fault in enumerate(plan.faults)
            for m, method in enumerate(plan.methods)
        )

    def _lost_by_unit(self) -> NDArray[np.float64]:
        """Return the score lost on average over splits and realisations, for each unit.

        The shape is faults x methods x units.
        """
        lost = self.clean_scores - self.unit_scores.mean(axis=3)
        return np.einsum("x,fmxi->fmi", self.plan.weights, lost)

    def of(self, fault: FaultModel) -> list[Score]:
        """Return the scores under one fault, best first."""
        mine = [score for score in self.scores if score.fault == fault]
        return sorted(mine, key=lambda score: score.lost.value)


def _are_binary(*scores: NDArray[np.float64]) -> bool:
    return all(bool(((each == 0) | (each == 1)).all()) for each in scores)


def _mean(scores: NDArray[np.float64], confidence: float) -> Proportion | Estimate:
    """Return the mean score with the exact binomial interval, if every score is 0 or 1."""
    if _are_binary(scores):
        return clopper_pearson(int(scores.sum()), len(scores), confidence)
    return bounded_mean(scores, confidence)


def _gain(mine: NDArray[np.float64], other: NDArray[np.float64], confidence: float) -> Difference:
    """Return by how much one split scores more than another on the same units and faults."""
    if _are_binary(mine, other):
        more, less = int((mine > other).sum()), int((mine < other).sum())
        return paired_difference(more, less, len(mine), confidence)
    mean = bounded_mean(mine - other, confidence, low=-1.0)
    return Difference(mean.value, mean.low, mean.high, confidence)


def _together(confidence: float, intervals: int) -> float:
    """Return the confidence of each interval so that all of them hold together (Bonferroni)."""
    return 1 - (1 - confidence) / intervals


def compare_rankings(
    network: Workload,
    train: Dataset,
    test: Dataset,
    plan: ComparisonPlan,
    stage: Stage,
    resume_from: Path | None = None,
) -> Comparison:
    """Rank with the images of `train`, and measure all splits on those of `test`.

    With `resume_from`, finished blocks of images are kept in that folder until all are done.
    """
    rankings = rank_all(network, train, plan, stage)
    return measure_rankings(network, rankings, test, plan, stage, resume_from)


def measure_rankings(
    network: Workload,
    rankings: Mapping[str, tuple[Ranking, ...]],
    test: Dataset,
    plan: ComparisonPlan,
    stage: Stage,
    resume_from: Path | None = None,
) -> Comparison:
    """Measure the splits of rankings that were made before, one for each method and fault."""
    cases = [
        Variant(rankings[method][f].split(fraction), fault)
        for f, fault in enumerate(plan.faults)
        for method in plan.methods
        for fraction in plan.fractions
    ]
    least = 2 * plan.outcome.unit
    if len(test) < least:
        raise InputError(f"'{plan.outcome.name}' is compared on at least {least} test images")
    advance = stage("injecting faults", len(test))
    found = predict_variants(
        network,
        test.images,
        cases,
        seed=plan.seed,
        realisations=plan.realisations,
        precision=plan.precision,
        device=plan.device,
        progress=lambda done, _: advance(done),
        resume_from=resume_from,
        with_confidence=plan.outcome.needs_confidence,
    )
    labels = test.labels.numpy()
    shape = (len(plan.faults), len(plan.methods), len(plan.fractions), plan.realisations, -1)
    return Comparison(
        network=network,
        plan=plan,
        data=f"{test.name}/{test.part}",
        rankings=rankings,
        unit_scores=_faulty_scores(found, labels, plan.outcome).reshape(shape),
        clean_scores=1 - judged(plan.outcome, found.fault_free, labels),
    )


def _faulty_scores(
    found: Predictions, labels: NDArray[np.int64], outcome: Outcome
) -> NDArray[np.float64]:
    """Return the scores of every variant, realisation and unit, one after another."""
    variants, realisations, _ = found.faulty.shape
    return 1 - np.array(
        [
            judged(outcome, found.of(variant, realisation), labels)
            for variant in range(variants)
            for realisation in range(realisations)
        ]
    )


def rank_all(
    network: Workload, train: Dataset, plan: ComparisonPlan, stage: Stage
) -> dict[str, tuple[Ranking, ...]]:
    """Return every method's ranking for every fault; those that are alike are made once."""
    made: dict[tuple[str, str], Ranking] = {}
    ground_truth = _GroundTruth(network, train, plan.device, stage)
    for method in plan.methods:
        for fault in plan.faults:
            key = _ranked_as(method, fault)
            if key not in made:
                made[key] = (
                    ground_truth.ranking(fault, EXHAUSTIVE[method])
                    if method in EXHAUSTIVE
                    else _rank_one(network, train, method, fault, plan, stage)
                )
    return {
        method: tuple(made[_ranked_as(method, fault)] for fault in plan.faults)
        for method in plan.methods
    }


def _ranked_as(method: str, fault: FaultModel) -> tuple[str, str]:
    """Return what a ranking depends on: equal for those with the same order."""
    if method == IN_LOOP or method in EXHAUSTIVE:
        return method, str(fault)
    return method, fault.name if method in BY_KIND else ""


def _rank_one(
    network: Workload,
    train: Dataset,
    method: str,
    fault: FaultModel,
    plan: ComparisonPlan,
    stage: Stage,
) -> Ranking:
    if method in plan.saved:
        return plan.saved[method]
    if method == IN_LOOP:
        return _rank_in_loop(network, train, fault, plan, stage)
    looks = method != "random"
    advance = stage(f"ranking by {method}", len(train))
    made = rank(
        network,
        train.images if looks else None,
        train.labels if looks else None,
        method,
        fault=fault if method in BY_KIND else None,
        seed=plan.seed,
        device=plan.device,
        data=_described(train),
        progress=lambda done, _: advance(done),
    )
    advance(len(train))
    return made


def _rank_in_loop(
    network: Workload, train: Dataset, fault: FaultModel, plan: ComparisonPlan, stage: Stage
) -> Ranking:
    advance = stage(f"ranking by {IN_LOOP}", (STEPS + 1) * len(train))
    return rank_in_loop(
        network, train.images, train.labels, fault, seed=plan.seed, device=plan.device,
        data=_described(train), progress=lambda done, _: advance(done),
    )  # fmt: skip


def _described(train: Dataset) -> str:
    return f"{train.name}/{train.part}, first {len(train)}"


class _GroundTruth:
    """Exhaustive injection of each fault, which gives the rankings by all its measures."""

    def __init__(self, network: Workload, train: Dataset, device: str, stage: Stage) -> None:
        self.network, self.train, self.device, self.stage = network, train, device, stage
        self._found: dict[str, ExhaustiveDamage] = {}

    def ranking(self, fault: FaultModel, measure: Measure) -> Ranking:
        """Return the ranking by one measure of the damage that a fault does."""
        if str(fault) not in self._found:
            advance: Callable[[int], None] | None = None

            def progress(done: int, total: int) -> None:
                nonlocal advance
                advance = advance or self.stage("striking every neuron", total)
                advance(done)

            self._found[str(fault)] = exhaustive_damage(
                self.network, self.train.images, self.train.labels, fault, device=self.device,
                data=_described(self.train), progress=progress,
            )  # fmt: skip
        return self._found[str(fault)].ranking(measure)

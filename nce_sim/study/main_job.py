"""The main job: rank, split, simulate, inject and collect, for all methods and fractions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nce_sim.accuracy.evaluate import (
    AccuracyResult,
    Variant,
    judge,
    mean_activation,
    predict_variants,
)
from nce_sim.accuracy.statistics import CONFIDENCE, Proportion, clopper_pearson
from nce_sim.config.machine import Machine
from nce_sim.cost.area import Area
from nce_sim.faults.models import Dropout, FaultModel, GaussianNoise
from nce_sim.machine.engine import Run, simulate
from nce_sim.resilience.ranking import Ranking, rank
from nce_sim.resilience.split import Split
from nce_sim.workload.calibration import Calibration, calibrate
from nce_sim.workload.datasets import Dataset, numbering_doubt
from nce_sim.workload.graph import Workload

METHODS = ("lrp", "gradient", "random")

Stage = Callable[[str, int], Callable[[int], None]]
"""Told (what begins, number of steps); returns the function that is told the steps done."""


@dataclass(frozen=True)
class Plan:
    """What the main job computes.

    Images are the first of their parts of the data. The same images, and for each image the same
    random faults, serve all methods, fractions and levels.
    """

    fractions: tuple[float, ...]
    dropout_probabilities: tuple[float, ...]
    noise_sigmas: tuple[float, ...]
    ranking_images: int
    test_images: int
    realisations: int
    seed: int
    ranking_precision: str
    precision: str
    device: str = "cpu"
    methods: tuple[str, ...] = METHODS

    @property
    def inferences(self) -> int:
        """Inferences under faults."""
        levels = len(self.dropout_probabilities) + len(self.noise_sigmas)
        each = inferences_an_image(self.fractions, levels, len(self.methods))
        return each * self.test_images * self.realisations


def inferences_an_image(fractions: Sequence[float], levels: int, methods: int) -> int:
    """Return how often an image is classified; alike variants (fractions 0 and 1) count once."""
    inner = sum(0 < fraction < 1 for fraction in fractions) * methods
    ends = (1.0 in fractions) * levels + (0.0 in fractions)
    return inner * levels + ends


@dataclass(frozen=True)
class AccuracyPoint:
    """Accuracy of one method's split under one fault."""

    method: str
    fraction: float
    fault: FaultModel
    split: Split
    result: AccuracyResult


@dataclass(frozen=True)
class HardwarePoint:
    """One method's split on the machine."""

    method: str
    fraction: float
    split: Split
    run: Run


@dataclass(frozen=True)
class MainJobResult:
    """All that the main job found.

    `data` names the test data, `fault_free` is the accuracy without faults in the evaluation's
    precision and `float32_fault_free` in float32; `agreement` is the share of test images to which
    both precisions give the same class. `guessing` is the accuracy of one answer to all test
    images, that of their most frequent label. `numbering_doubt` says what is odd about the labels.
    """

    network: Workload
    machine: Machine
    plan: Plan
    data: str
    rankings: Mapping[str, Ranking]
    mean_activation: Mapping[str, float]
    accuracy: tuple[AccuracyPoint, ...]
    hardware: tuple[HardwarePoint, ...]
    fault_free: Proportion
    float32_fault_free: Proportion
    agreement: Proportion
    guessing: float
    numbering_doubt: str | None = None

    @property
    def no_better_than_guessing(self) -> bool:
        """Whether fault-free accuracy is not told apart from that of one answer to all images."""
        return self.fault_free.low <= self.guessing

    @property
    def area(self) -> Area:
        """Area of the machine, whatever the split."""
        return self.hardware[0].run.area

    def accuracy_of(self, method: str, fraction: float, fault: FaultModel) -> AccuracyResult:
        """Return one accuracy point."""
        for point in self.accuracy:
            if (point.method, point.fraction) == (method, fraction) and point.fault == fault:
                return point.result
        raise KeyError((method, fraction, str(fault)))

    def hardware_of(self, method: str, fraction: float) -> Run:
        """Return one hardware point."""
        for point in self.hardware:
            if (point.method, point.fraction) == (method, fraction):
                return point.run
        raise KeyError((method, fraction))

    @property
    def faults(self) -> tuple[FaultModel, ...]:
        """The faults, in the order of the plan."""
        return tuple(_faults(self.plan, self.mean_activation))


def run_main_job(
    network: Workload,
    machine: Machine,
    ranking_data: Dataset,
    test_data: Dataset,
    plan: Plan,
    stage: Stage,
    resume_from: Path | None = None,
) -> MainJobResult:
    """Run every stage of the pipeline once for each method and fraction of `plan`.

    With `resume_from`, what an interrupted run of the same plan has evaluated is used.

    Raises InputError if the data hold fewer images than the plan asks for.
    """
    train, test = ranking_data.first(plan.ranking_images), test_data.first(plan.test_images)
    rankings = _rank_all(network, train, plan, stage)
    advance = stage("mean activation", len(train))
    means = mean_activation(
        network, train.images, device=plan.device, progress=lambda done, _: advance(done)
    )
    splits = {
        (method, fraction): rankings[method].split(fraction)
        for method in plan.methods
        for fraction in plan.fractions
    }
    hardware = _simulate_all(network, machine, splits, stage)
    calibration = None
    if plan.precision == "int8":
        calibration = calibrate(network, train.images, device=plan.device)
    accuracy, clean = _evaluate_all(
        network, test, splits, _faults(plan, means), plan, stage, resume_from, calibration
    )
    reference = clean
    if plan.precision != "float32":
        advance = stage("float32 reference", len(test))
        reference = predict_variants(
            network, test.images, [], device=plan.device, progress=lambda done, _: advance(done)
        ).clean
    labels = test.labels.numpy()
    return MainJobResult(
        network=network,
        machine=machine,
        plan=plan,
        data=f"{test.name}/{test.part}",
        rankings=rankings,
        mean_activation=means,
        accuracy=accuracy,
        hardware=hardware,
        fault_free=_share(clean == labels),
        float32_fault_free=_share(reference == labels),
        agreement=_share(reference == clean),
        guessing=float(np.bincount(labels).max() / len(labels)),
        numbering_doubt=numbering_doubt(test, network.output.outputs),
    )


def _share(events: NDArray[np.bool_]) -> Proportion:
    return clopper_pearson(int(events.sum()), len(events))


def _faults(plan: Plan, means: Mapping[str, float]) -> list[FaultModel]:
    return [
        *(Dropout(probability) for probability in plan.dropout_probabilities),
        *(GaussianNoise(sigma, means) for sigma in plan.noise_sigmas),
    ]


def _rank_all(network: Workload, train: Dataset, plan: Plan, stage: Stage) -> dict[str, Ranking]:
    rankings = {}
    for method in plan.methods:
        advance = stage(f"ranking by {method}", len(train) if method != "random" else 1)
        rankings[method] = rank(
            network,
            train.images if method != "random" else None,
            train.labels if method != "random" else None,
            method,
            seed=plan.seed,
            precision=plan.ranking_precision if method == "lrp" else "float32",
            device=plan.device,
            data=f"{train.name}/{train.part}, first {len(train)}",
            progress=lambda done, _, advance=advance: advance(done),  # type: ignore[misc]
        )
        if method == "random":
            advance(1)
    return rankings


def _simulate_all(
    network: Workload,
    machine: Machine,
    splits: Mapping[tuple[str, float], Split],
    stage: Stage,
) -> tuple[HardwarePoint, ...]:
    """Simulate each distinct split once."""
    advance = stage("simulating the machine", len(splits))
    runs: dict[str, Run] = {}
    points = []
    for number, ((method, fraction), split) in enumerate(splits.items()):
        if split.identity not in runs:
            runs[split.identity] = simulate(network, machine, split)
        points.append(HardwarePoint(method, fraction, split, runs[split.identity]))
        advance(number + 1)
    return tuple(points)


def _evaluate_all(
    network: Workload,
    test: Dataset,
    splits: Mapping[tuple[str, float], Split],
    faults: list[FaultModel],
    plan: Plan,
    stage: Stage,
    resume_from: Path | None,
    calibration: Calibration | None,
) -> tuple[tuple[AccuracyPoint, ...], NDArray[np.int16]]:
    """Classify the test images under all variants at once, so that they share their faults.

    Returns the points and the fault-free classes.
    """
    cases = [(key, fault) for fault in faults for key in splits]
    advance = stage("injecting faults", len(test))
    predictions = predict_variants(
        network,
        test.images,
        [Variant(splits[key], fault) for key, fault in cases],
        seed=plan.seed,
        realisations=plan.realisations,
        precision=plan.precision,
        device=plan.device,
        progress=lambda done, _: advance(done),
        resume_from=resume_from,
        calibration=calibration,
    )
    order = np.tile(np.arange(len(test)), plan.realisations)
    points = tuple(
        AccuracyPoint(
            method,
            fraction,
            fault,
            splits[method, fraction],
            judge(
                predictions.faulty[number].ravel(), predictions.clean, test.labels, order,
                plan.precision, CONFIDENCE,
            ),
        )
        for number, ((method, fraction), fault) in enumerate(cases)
    )  # fmt: skip
    return points, predictions.clean

"""Accuracy under faults: many variants over the same images and the same random faults."""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nce_sim.accuracy.accuracy_result import AccuracyResult, judge, judge_drawn
from nce_sim.accuracy.answers import Answers
from nce_sim.accuracy.block_runner import BLOCK, BlockRunner, Memory
from nce_sim.accuracy.checkpoint import Block, Checkpoint, evaluation_identity
from nce_sim.accuracy.confidence_sequence import bounded_mean
from nce_sim.accuracy.draws import Places
from nce_sim.accuracy.outcomes import TOP1, Outcome, check_outcome, judged
from nce_sim.accuracy.sampling import (
    MOST_PASSES,
    Progress,
    Sampling,
    sample,
    times_before,
)
from nce_sim.accuracy.statistics import (
    CONFIDENCE,
    check_confidence,
    clopper_pearson,
)
from nce_sim.accuracy.workers import in_order
from nce_sim.errors import InputError
from nce_sim.faults.injection import Injector
from nce_sim.faults.models import FaultModel
from nce_sim.machine.lookup import Schedule
from nce_sim.resilience.split import Split
from nce_sim.workload.calibration import Calibration
from nce_sim.workload.execute import (
    PRECISIONS,
    Executable,
    block_length,
    blocks,
    check_device,
    forward,
    has_fast_bfloat16,
    pad_block,
    prepare,
)
from nce_sim.workload.graph import Workload
from nce_sim.workload.images import Images
from nce_sim.workload.layer import Layer
from nce_sim.workload.layout import rows_by_position

RUN = 64
"""Numbers that are added in float32 before their sum goes on in float64."""

if TYPE_CHECKING:
    from nce_sim.accuracy.inject import AnyFault


@dataclass(frozen=True)
class Variant:
    """A split and the fault that strikes its unprotected neurons."""

    split: Split
    fault: FaultModel

    @property
    def identity(self) -> tuple[str, str]:
        """Equal for variants whose faulty networks behave alike to the bit."""
        fault = "any" if self.split.unprotected_neurons == 0 else repr(self.fault)
        return (self.split.identity, fault)


def default_precision() -> str:
    """Return "bfloat16" where the processor multiplies it faster, else "float32"."""
    return "bfloat16" if has_fast_bfloat16() else "float32"


def evaluate(
    network: Workload,
    images: Images,
    labels: Tensor,
    split: Split,
    faults: "AnyFault | Sequence[AnyFault]",
    *,
    schedule: Schedule | None = None,
    half_width: float | None = None,
    realisations: int = 1,
    seed: int = 0,
    precision: str | None = None,
    device: str = "cpu",
    confidence: float = CONFIDENCE,
    progress: Progress | None = None,
    calibration: Calibration | None = None,
    outcome: Outcome | None = None,
    fault_free: Answers | None = None,
) -> AccuracyResult:
    """Measure the accuracy of `network` with `faults` on the unprotected neurons of `split`.

    `faults` is Dropout or GaussianNoise; or a Fault of the hardware, or several faults at once,
    which strike where the `schedule` of a simulated run (`run.schedule`) of that split says.

    Without `half_width`, every image is classified `realisations` times, each time with new
    faults. With it, images are drawn with replacement, each time with new faults, until the
    interval of the mean harm is no longer than twice that or `realisations` x 10 x N images were
    drawn. It is a confidence sequence: valid although it was looked at on the way.

    `outcome` says how harmful an answer is; a wrong one has harm 1 if it is not given. The result
    has the mean harm beside the accuracy. An answer that the hardware gives up does the worst
    harm. `fault_free` are the answers to all images without faults (`fault_free_answers`), where
    they are known already from another evaluation; they are for faults of outputs.

    `images` is float32 N x the network's input shape, `labels` int64 N. If `precision` is not
    given it is float32, or the machine's number format for faults of the hardware. "int8" needs a
    `calibration`. Unless the precision is float32, the result has float32's accuracy as well.
    Raises InputError for input that does not fit.
    """
    if not isinstance(split, Split):
        raise InputError(f"split must be a Split, as ranking.split(...) makes it, not {split!r}")
    outcome = outcome or TOP1
    check_outcome(outcome)
    if not isinstance(faults, FaultModel):
        from nce_sim.accuracy.inject import accuracy_in_hardware

        return accuracy_in_hardware(
            network, images, labels, split, faults, schedule, half_width=half_width,
            outcome=outcome, confidence=confidence, progress=progress,
            realisations=realisations, seed=seed, precision=precision, calibration=calibration,
            device=device,
        )  # fmt: skip
    precision = precision or "float32"
    variant = Variant(split, faults)
    _check(network, images, labels, precision)
    check_device(device)
    check_confidence(confidence)
    if realisations < 1:
        raise InputError(f"realisations must be at least 1, not {realisations}")
    if fault_free is not None:
        _check_answers(fault_free, len(images), outcome)
    if half_width is None:
        order = np.arange(len(images))
        predictions = predict_variants(
            network, images, [variant], seed=seed, realisations=realisations, precision=precision,
            device=device, progress=progress, calibration=calibration,
            with_confidence=outcome.needs_confidence, fault_free=fault_free,
        )  # fmt: skip
        harms = [
            judged(outcome, predictions.of(0, realisation), labels.numpy())
            for realisation in range(realisations)
        ]
        result = judge(
            predictions.faulty[0].ravel(), predictions.clean, labels, np.tile(order, realisations),
            precision, confidence,
        )  # fmt: skip
        if outcome.name != TOP1.name:
            joined = np.concatenate(harms)
            harmless = judged(outcome, predictions.fault_free, labels.numpy())
            result = result.with_harms(
                outcome.name, joined, bounded_mean(joined, confidence), float(harmless.mean())
            )
    else:
        sampling = Sampling(
            outcome, half_width, MOST_PASSES * realisations * len(images), seed, confidence
        )
        executable = prepare(network, precision, device, calibration)
        drawn = _DrawnImages(
            executable, Injector(executable, split, faults), images, seed,
            outcome.needs_confidence, device,
        )  # fmt: skip
        clean = fault_free or fault_free_answers(
            network, images, precision=precision, device=device, calibration=calibration,
            with_confidence=outcome.needs_confidence,
        )  # fmt: skip
        answers, sampled, reached = sample(
            sampling, labels.numpy(), clean, drawn.classify, progress
        )
        result = judge_drawn(
            answers, clean, labels.numpy(), sampled, reached, precision, confidence, outcome
        )
    return with_float_reference(result, network, images, labels, device, confidence)


def with_float_reference(
    result: AccuracyResult, network: Workload, images: Images, labels: Tensor, device: str,
    confidence: float,
) -> AccuracyResult:  # fmt: skip
    """Return a result with float32's fault-free accuracy, unless it is of float32 itself."""
    if result.precision == "float32":
        return result
    right = predict_variants(network, images, [], device=device).clean == labels.numpy()
    reference = clopper_pearson(int(right.sum()), len(right), confidence)
    return replace(result, float_reference=reference)


def fault_free_answers(
    network: Workload,
    images: Images,
    *,
    precision: str = "float32",
    device: str = "cpu",
    calibration: Calibration | None = None,
    with_confidence: bool = False,
) -> Answers:
    """Classify `images` without faults. Precision "int8" needs a `calibration`."""
    return predict_variants(
        network, images, [], precision=precision, device=device, calibration=calibration,
        with_confidence=with_confidence,
    ).fault_free  # fmt: skip


@dataclass(frozen=True)
class Predictions:
    """Predicted classes: `clean` for each image, `faulty` variants x realisations x images.

    The confidences, of the same shapes, are None where they were not asked for.
    """

    clean: NDArray[np.int16]
    faulty: NDArray[np.int16]
    clean_confidence: NDArray[np.float32] | None = None
    faulty_confidence: NDArray[np.float32] | None = None

    @property
    def fault_free(self) -> Answers:
        """The answers without faults."""
        return Answers(self.clean, self.clean_confidence)

    def of(self, variant: int, realisation: int) -> Answers:
        """Return the answers for all images under one realisation of one variant's faults."""
        return Answers(self.faulty, self.faulty_confidence)[variant, realisation]


def predict_variants(
    network: Workload,
    images: Images,
    variants: Sequence[Variant],
    *,
    seed: int = 0,
    realisations: int = 1,
    precision: str = "float32",
    device: str = "cpu",
    progress: Progress | None = None,
    resume_from: Path | None = None,
    calibration: Calibration | None = None,
    with_confidence: bool = False,
    fault_free: Answers | None = None,
) -> Predictions:
    """Classify `images` without faults and under every variant.

    All variants of a block share its random draws and what comes before their first unprotected
    neuron. Variants that are alike to the bit are computed once. With `resume_from`, finished
    blocks are kept in that folder until all are done, and those that an interrupted run left are
    used. Precision "int8" needs a `calibration`. `with_confidence` keeps the answers' softmax as
    well. `fault_free` are the answers without faults, where they are known already.
    """
    executable = prepare(network, precision, device, calibration)
    rows: dict[tuple[str, str], int] = {}
    row_of = [rows.setdefault(variant.identity, len(rows)) for variant in variants]
    distinct = [variants[row_of.index(row)] for row in range(len(rows))]
    injectors = [Injector(executable, variant.split, variant.fault) for variant in distinct]
    checkpoint = None
    if resume_from is not None:
        identity = evaluation_identity(
            network, images, list(rows), seed, realisations, precision, device, calibration,
            *(["confidence"] if with_confidence else []),
        )  # fmt: skip
        checkpoint = Checkpoint(resume_from, *identity)
    count, length = len(images), block_length(network, BLOCK)
    memory = Memory()
    clean = np.empty(count, np.int16)
    shape = len(injectors), realisations, count
    faulty = np.empty(shape, np.int16)
    clean_sure = np.empty(count, np.float32) if with_confidence else None
    faulty_sure = np.empty(shape, np.float32) if with_confidence else None

    def compute(block: slice) -> tuple[slice, Block, bool]:
        kept = checkpoint.load(block.start) if checkpoint is not None else None
        if kept is not None:
            return block, kept, False
        runner = BlockRunner(
            executable, images[block], length, memory.scratch, injectors, with_confidence
        )
        known = None if fault_free is None else fault_free[block]
        return block, runner.predict_all(seed, realisations, block.start, known), True

    with closing(in_order(compute, blocks(count, length), device)) as computed:
        for block, kept, new in computed:
            if new and checkpoint is not None:
                checkpoint.save(block.start, kept)
            clean[block], faulty[:, :, block] = kept.clean.classes, kept.faulty.classes
            if clean_sure is not None and faulty_sure is not None:
                clean_sure[block] = kept.clean.confidences
                faulty_sure[:, :, block] = kept.faulty.confidences
            if progress is not None:
                progress(block.stop, count)
    if checkpoint is not None:
        checkpoint.remove()
    return Predictions(
        clean, faulty[row_of], clean_sure, None if faulty_sure is None else faulty_sure[row_of]
    )


@dataclass(frozen=True)
class _DrawnImages:
    """Classifies drawn images, the k-th time that one is drawn under realisation k of the faults.

    All variants so see the same faults, too.
    """

    executable: Executable
    injector: Injector
    images: Images
    seed: int
    with_confidence: bool
    device: str

    def classify(self, places: Places) -> Generator[Answers, None, None]:
        """Yield the answers of one block after another."""
        realisations = times_before(places)
        length = block_length(self.executable.network, BLOCK)
        memory = Memory()

        def compute(block: slice) -> Answers:
            order = places[block]
            runner = BlockRunner(
                self.executable, self.images[order], length, memory.scratch, [self.injector],
                self.with_confidence,
            )  # fmt: skip
            draws = runner.draws(self.seed, realisations[block].tolist(), order.tolist())
            return runner.predict(0, draws)

        return in_order(compute, blocks(len(places), length), self.device)


def mean_activation(
    network: Workload, images: Images, *, device: str = "cpu", progress: Progress | None = None
) -> dict[str, float]:
    """Return each layer's mean of |y| over its neurons and `images`, without faults, float32.

    This is mu_signal of section IV-D of the paper; use training images.
    """
    network.check_images(images)
    executable = prepare(network, "float32", device)
    length = block_length(network, BLOCK)

    def sums_of(block: slice) -> tuple[int, dict[str, float]]:
        sums: dict[str, float] = {}

        def add(layer: Layer, _: Tensor, output: Tensor) -> Tensor:
            rows = rows_by_position(output[: block.stop - block.start])
            sums[layer.name] = sum_of_magnitudes(rows)
            return output

        with torch.inference_mode():
            forward(executable, executable.images(pad_block(images[block], length)), hook=add)
        return block.stop, sums

    total = {layer.name: 0.0 for layer in network.neuron_layers}
    with closing(in_order(sums_of, blocks(len(images), length), device)) as computed:
        for done, sums in computed:
            for name, value in sums.items():
                total[name] += value
            if progress is not None:
                progress(done, len(images))
    return {
        layer.name: total[layer.name] / (layer.neurons * len(images))
        for layer in network.neuron_layers
    }


def sum_of_magnitudes(rows: Tensor) -> float:
    """Return the sum of |x| over a float32 matrix: short runs in float32, their sums in float64.

    Doubles for every element would take several times as long.
    """
    whole = rows.shape[1] // RUN * RUN
    runs = rows[:, :whole].reshape(-1, RUN).abs().sum(dim=1)
    rest = rows[:, whole:].abs().sum(dim=1)
    return float(runs.sum(dtype=torch.float64) + rest.sum(dtype=torch.float64))


def _check_answers(fault_free: Answers, images: int, outcome: Outcome) -> None:
    if len(fault_free.classes) != images:
        raise InputError(f"{images} images, but {len(fault_free.classes)} fault-free answers")
    if outcome.needs_confidence and fault_free.confidences is None:
        raise InputError(f"'{outcome.name}' needs fault-free answers with their confidences")


def _check(network: Workload, images: Images, labels: Tensor, precision: str) -> None:
    network.check_images(images)
    network.check_labels(images, labels)
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision '{precision}': known are {', '.join(PRECISIONS)}")

"""Accuracy under faults: many variants over the same images and the same random faults."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nce_sim.accuracy.checkpoint import Block, Checkpoint, evaluation_identity
from nce_sim.accuracy.statistics import (
    CONFIDENCE,
    Difference,
    Proportion,
    check_confidence,
    clopper_pearson,
    look_confidence,
    look_points,
    paired_difference,
)
from nce_sim.accuracy.workers import in_order
from nce_sim.errors import InputError
from nce_sim.faults.injection import BlockDraws, Injector, Scratch
from nce_sim.faults.models import FaultModel
from nce_sim.machine.lookup import Schedule
from nce_sim.resilience.split import Split
from nce_sim.seeding import generator
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
    pad_places,
    prepare,
)
from nce_sim.workload.graph import Workload
from nce_sim.workload.layer import INPUT
from nce_sim.workload.layout import restore_shape, rows_by_position

BLOCK = 16
"""Images in a block at most: what one thread computes at a time, and its maps stay in the cache."""

if TYPE_CHECKING:
    from nce_sim.accuracy.inject import AnyFault

NOT_FINITE = -1
"""Prediction of an inference whose outputs hold NaN or infinity: it is no class, and wrong."""

Progress = Callable[[int, int], None]
"""Told (images done, images in all) after every block."""


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
    """

    correct: Proportion
    fault_free: Proportion
    sdc: Proportion
    critical_sdc: Proportion
    not_finite: Proportion
    precision: str
    half_width_reached: bool
    right: NDArray[np.bool_]
    float_reference: Proportion | None = None
    due: Proportion | None = None

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.correct.value

    @property
    def interval(self) -> tuple[float, float]:
        """Interval of `accuracy` at `correct.confidence`."""
        return (self.correct.low, self.correct.high)

    def minus(self, other: "AccuracyResult") -> Difference:
        """Return how much more accurate this variant is than one on the same draws."""
        if len(self.right) != len(other.right):
            raise ValueError("a paired difference needs the same images and draws")
        only_first = int((self.right & ~other.right).sum())
        only_second = int((other.right & ~self.right).sum())
        return paired_difference(only_first, only_second, len(self.right), self.correct.confidence)

    def summary(self) -> dict[str, float]:
        """Return the rates with the ends of their intervals as plain data."""
        rates = {
            "accuracy": self.correct,
            "fault_free": self.fault_free,
            "sdc": self.sdc,
            "critical_sdc": self.critical_sdc,
            "not_finite": self.not_finite,
        }
        if self.float_reference is not None:
            rates["float_reference"] = self.float_reference
        found: dict[str, float] = {"inferences": self.correct.trials}
        for name, rate in rates.items():
            found |= {name: rate.value, f"{name}_low": rate.low, f"{name}_high": rate.high}
        return found

    def __str__(self) -> str:
        baselines = f"fault-free {self.fault_free.value:.2%}"
        if self.float_reference is not None:
            baselines += f" in {self.precision}, {self.float_reference.value:.2%} in float32"
        return (
            f"accuracy {self.correct} ({100 * self.correct.confidence:.4g}% interval, "
            f"{self.correct.trials:,} inferences, {baselines})"
        )


def default_precision() -> str:
    """Return "bfloat16" where the processor multiplies it in hardware, else "float32"."""
    return "bfloat16" if has_fast_bfloat16() else "float32"


def evaluate(
    network: Workload,
    images: Tensor,
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
) -> AccuracyResult:
    """Measure the accuracy of `network` with `faults` on the unprotected neurons of `split`.

    `faults` is Dropout or GaussianNoise; or a Fault of the hardware, or several faults at once,
    which strike where the `schedule` of a simulated run (`run.schedule`) of that split says.

    Without `half_width`, every image is classified `realisations` times, each time with new
    faults. With it, images are taken in a random order, pass after pass with new faults, until
    the interval is no wider than that on either side or `realisations` x 10 passes are done;
    the interval is valid although it was looked at on the way.

    `images` is float32 N x the network's input shape, `labels` int64 N. If `precision` is not
    given it is float32, or the machine's number format for faults of the hardware. "int8" needs a
    `calibration`. Unless the precision is float32, the result has float32's accuracy as well.
    Raises InputError for input that does not fit.
    """
    if not isinstance(split, Split):
        raise InputError(f"split must be a Split, as ranking.split(...) makes it, not {split!r}")
    if not isinstance(faults, FaultModel):
        from nce_sim.accuracy.inject import accuracy_in_hardware

        if half_width is not None:
            raise InputError("half_width goes with one Dropout or GaussianNoise: take realisations")
        return accuracy_in_hardware(
            network, images, labels, split, faults, schedule, realisations=realisations, seed=seed,
            precision=precision, calibration=calibration, device=device, confidence=confidence,
            progress=progress,
        )  # fmt: skip
    precision = precision or "float32"
    variant = Variant(split, faults)
    _check(network, images, labels, precision)
    check_device(device)
    check_confidence(confidence)
    if realisations < 1:
        raise InputError(f"realisations must be at least 1, not {realisations}")
    if half_width is None:
        order = np.arange(len(images))
        predictions = predict_variants(
            network, images, [variant], seed=seed, realisations=realisations, precision=precision,
            device=device, progress=progress, calibration=calibration,
        )  # fmt: skip
        result = judge(
            predictions.faulty[0].ravel(), predictions.clean, labels, np.tile(order, realisations),
            precision, confidence,
        )  # fmt: skip
    elif not 0 < half_width < 0.5:
        raise InputError(f"half_width must be above 0 and below 0.5, not {half_width}")
    else:
        result = _evaluate_until(
            network, images, labels, variant, half_width, 10 * realisations, seed, precision,
            device, confidence, progress, calibration,
        )  # fmt: skip
    if precision == "float32":
        return result
    right = predict_variants(network, images, [], device=device).clean == labels.numpy()
    reference = clopper_pearson(int(right.sum()), len(right), confidence)
    return replace(result, float_reference=reference)


@dataclass(frozen=True)
class Predictions:
    """Predicted classes: `clean` for each image, `faulty` variants x realisations x images."""

    clean: NDArray[np.int16]
    faulty: NDArray[np.int16]


def predict_variants(
    network: Workload,
    images: Tensor,
    variants: Sequence[Variant],
    *,
    seed: int = 0,
    realisations: int = 1,
    precision: str = "float32",
    device: str = "cpu",
    progress: Progress | None = None,
    resume_from: Path | None = None,
    calibration: Calibration | None = None,
) -> Predictions:
    """Classify `images` without faults and under every variant.

    All variants of a block share its random draws and the fault-free outputs of the first layer.
    Variants that are alike to the bit are computed once. With `resume_from`, finished blocks are
    kept in that folder until all are done, and those that an interrupted run left are used.
    Precision "int8" needs a `calibration`.
    """
    executable = prepare(network, precision, device, calibration)
    rows: dict[tuple[str, str], int] = {}
    row_of = [rows.setdefault(variant.identity, len(rows)) for variant in variants]
    distinct = [variants[row_of.index(row)] for row in range(len(rows))]
    injectors = [Injector(executable, variant.split, variant.fault) for variant in distinct]
    checkpoint = None
    if resume_from is not None:
        identity = evaluation_identity(
            network, images, list(rows), seed, realisations, precision, device, calibration
        )
        checkpoint = Checkpoint(resume_from, *identity)
    count, length = len(images), block_length(network, BLOCK)
    memory = _Memory()
    clean = np.empty(count, np.int16)
    faulty = np.empty((len(injectors), realisations, count), np.int16)

    def compute(block: slice) -> tuple[slice, Block, bool]:
        kept = checkpoint.load(block.start) if checkpoint is not None else None
        if kept is not None:
            return block, kept, False
        runner = _BlockRunner(executable, images[block], length, memory.scratch)
        return block, runner.predict_all(injectors, seed, realisations, block.start), True

    with closing(in_order(compute, blocks(count, length), device)) as computed:
        for block, kept, new in computed:
            if new and checkpoint is not None:
                checkpoint.save(block.start, kept)
            clean[block], faulty[:, :, block] = kept
            if progress is not None:
                progress(block.stop, count)
    if checkpoint is not None:
        checkpoint.remove()
    return Predictions(clean, faulty[row_of])


class _Memory(threading.local):
    """Each thread's own memory to work in."""

    def __init__(self) -> None:
        self.scratch = Scratch()


class _BlockRunner:
    """Runs one block of images under many variants; what they share is computed once."""

    def __init__(
        self, executable: Executable, images: Tensor, length: int, scratch: Scratch
    ) -> None:
        self.executable, self.scratch = executable, scratch
        self.count = len(images)
        layers = executable.network.layers
        self.first, self.rest = layers[0], layers[1:]
        with torch.inference_mode():
            self.inputs = executable.images(pad_block(images, length))
            self.first_output = forward(executable, self.inputs, [self.first])

    def predict_all(
        self, injectors: Sequence[Injector], seed: int, realisations: int, first: int
    ) -> Block:
        """Return the block's predictions without faults and under every variant."""
        faulty = np.empty((len(injectors), realisations, self.count), np.int16)
        places = range(first, first + self.count)
        for realisation in range(realisations):
            draws = self.draws(seed, realisation, places)
            for row, injector in enumerate(injectors):
                faulty[row, realisation] = self.predict(injector, draws)
        return self.predict(None), faulty

    def draws(self, seed: int, realisation: int, places: Sequence[int]) -> BlockDraws:
        """Return the draws for the images at `places`, the last repeated like the padding."""
        padded = pad_places(places, len(self.first_output))
        return BlockDraws(self.executable, seed, realisation, padded, self.scratch)

    def predict(
        self, injector: Injector | None, draws: BlockDraws | None = None
    ) -> NDArray[np.int16]:
        """Return the predicted class of every image of the block."""
        with torch.inference_mode():
            output = self.first_output
            hook = None
            if injector is not None and draws is not None:
                hook = injector.hook(draws)
                if self.first.has_neurons:
                    output = hook(self.first, self.inputs, self._copy_of_first_output())
            if self.rest:
                known = {INPUT: self.inputs, self.first.name: output}
                start = known[self.rest[0].source]
                output = forward(self.executable, start, self.rest, hook, known)
            return top1(output[: self.count])

    def _copy_of_first_output(self) -> Tensor:
        """Return the first layer's output for a hook to overwrite."""
        rows = rows_by_position(self.first_output)
        if rows.device.type != "cpu":
            return self.first_output.clone()
        copy = self.scratch.take("first output", rows.dtype, *rows.shape).copy_(rows)
        return restore_shape(copy, self.first_output)


def top1(outputs: Tensor) -> NDArray[np.int16]:
    """Return each row's class of the largest output, or NOT_FINITE if any output is not finite."""
    outputs = outputs.flatten(1)
    finite = outputs.isfinite().all(1)
    classes = torch.where(finite[:, None], outputs, 0).argmax(1)
    return torch.where(finite, classes, NOT_FINITE).cpu().numpy().astype(np.int16)


def judge(
    predicted: NDArray[np.int16],
    clean: NDArray[np.int16],
    labels: Tensor,
    order: NDArray[np.intp],
    precision: str,
    confidence: float = CONFIDENCE,
) -> AccuracyResult:
    """Turn predictions into rates; `order` gives the image of each prediction."""
    truth = labels.numpy()[order]
    fault_free = clean[order]
    right = predicted == truth
    changed = predicted != fault_free

    def rate(events: NDArray[np.bool_]) -> Proportion:
        return clopper_pearson(int(events.sum()), len(events), confidence)

    return AccuracyResult(
        correct=rate(right),
        fault_free=rate(clean == labels.numpy()),
        sdc=rate(changed),
        critical_sdc=rate(changed & (fault_free == truth)),
        not_finite=rate(predicted == NOT_FINITE),
        precision=precision,
        half_width_reached=True,
        right=right,
    )


def _evaluate_until(
    network: Workload, images: Tensor, labels: Tensor, variant: Variant, half_width: float,
    most_passes: int, seed: int, precision: str, device: str, confidence: float,
    progress: Progress | None, calibration: Calibration | None,
) -> AccuracyResult:  # fmt: skip
    """Sample until the interval is narrow enough, looking at fixed numbers of inferences."""
    executable = prepare(network, precision, device, calibration)
    injector = Injector(executable, variant.split, variant.fault)
    most = most_passes * len(images)
    looks = look_points(most)
    clean = predict_variants(
        network, images, [], precision=precision, device=device, calibration=calibration
    ).clean
    predicted: list[NDArray[np.int16]] = []
    taken: list[NDArray[np.intp]] = []
    done, look, memory = 0, 0, _Memory()
    length = block_length(network, BLOCK)

    def compute(
        block: tuple[int, NDArray[np.intp]],
    ) -> tuple[NDArray[np.intp], NDArray[np.int16]]:
        realisation, places = block
        runner = _BlockRunner(executable, images[places], length, memory.scratch)
        return places, runner.predict(injector, runner.draws(seed, realisation, places.tolist()))

    todo = _random_blocks(len(images), length, most, seed)
    with closing(in_order(compute, todo, device)) as computed:
        for places, classes in computed:
            predicted.append(classes)
            taken.append(places)
            done += len(places)
            if progress is not None:
                progress(done, most)
            if done < looks[look]:
                continue
            look += 1
            at_look = look_confidence(look, confidence)
            result = judge(
                np.concatenate(predicted), clean, labels, np.concatenate(taken), precision, at_look
            )  # fmt: skip
            if result.correct.half_width <= half_width:
                return result
    # The last look is at the end of the last pass: that result stands, but is not narrow enough.
    return replace(result, half_width_reached=False)


def _random_blocks(
    count: int, length: int, most: int, seed: int
) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Yield (realisation, places of images): pass after pass, each in a random order of its own."""
    for realisation in range(most // count):
        order = generator(seed, "order of images", realisation).permutation(count)
        for block in blocks(count, length):
            yield realisation, order[block]


def mean_activation(
    network: Workload, images: Tensor, *, device: str = "cpu", progress: Progress | None = None
) -> dict[str, float]:
    """Return each layer's mean of |y| over its neurons and `images`, without faults, float32.

    This is mu_signal of section IV-D of the paper; use training images.
    """
    network.check_images(images)
    executable = prepare(network, "float32", device)
    length = block_length(network)
    sums = {layer.name: 0.0 for layer in network.neuron_layers}
    for block in blocks(len(images), length):
        valid = block.stop - block.start

        def add(layer, _, output, valid=valid):  # type: ignore[no-untyped-def]
            sums[layer.name] += float(output[:valid].abs().sum(dtype=torch.float64))
            return output

        with torch.inference_mode():
            forward(executable, executable.images(pad_block(images[block], length)), hook=add)
        if progress is not None:
            progress(block.stop, len(images))
    return {
        layer.name: sums[layer.name] / (layer.neurons * len(images))
        for layer in network.neuron_layers
    }


def _check(network: Workload, images: Tensor, labels: Tensor, precision: str) -> None:
    network.check_images(images)
    network.check_labels(images, labels)
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision '{precision}': known are {', '.join(PRECISIONS)}")

"""One block of images: first without faults, then under what strikes it in each realisation.

Only layers from the first that is struck on are computed again, from the outputs kept.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nce_sim.accuracy.answers import NOT_FINITE, top1
from nce_sim.accuracy.inferences import Inferences
from nce_sim.errors import InputError
from nce_sim.faults.corruption import ANSWER_BITS, ANSWERS, Corruptions
from nce_sim.faults.lane_checks import ChecksumLanes, Notices
from nce_sim.faults.mission import Arrivals
from nce_sim.faults.strike_layer import (
    ArrayHits,
    Bounds,
    LayerOutcome,
    changed_outputs,
    split_hits,
    strike_layer,
)
from nce_sim.faults.table import Counts
from nce_sim.faults.views import (
    View,
    as_tensor,
    as_words,
    change_rows,
    equal_bits,
    misread,
    outputs_of,
    views_of,
)
from nce_sim.faults.voting import Struck
from nce_sim.machine.lookup import Schedule
from nce_sim.schedule.domains import DOMAINS
from nce_sim.workload.calibration import Calibration
from nce_sim.workload.execute import Executable, OutputHook
from nce_sim.workload.layer import INPUT, Layer

TOP = 5

ByArray = Mapping[str, ArrayHits]
ByImage = Mapping[int | None, Corruptions]
"""Wrong words by image of the block; None: of all images."""

Watch = Callable[[Layer, Tensor, Tensor], None]
"""Is told of each layer whose lanes are struck: its stored outputs (images x its shape) without
faults of these lanes, from the same operands, and with them."""


@dataclass(frozen=True)
class CleanBlock:
    """A block of images without faults: every layer's outputs, and what they answer.

    `count` images are real, `classes` has one entry each, `best` the places of their best outputs.
    """

    count: int
    values: dict[str, Tensor]
    classes: NDArray[np.int16]
    best: NDArray[np.int64]


class StruckBlocks:
    """Runs blocks of images on the machine of a schedule, one after another.

    Layers are taken in the machine's steps, of which those that finish neurons are
    `neuron_layers`, each with the layer of the network whose neurons it finishes.
    """

    def __init__(
        self, executable: Executable, schedule: Schedule, calibration: Calibration | None,
        seed: int = 0, watch: Watch | None = None,
    ) -> None:  # fmt: skip
        self.neuron_layers = {
            executable.network.finished_by.get(layer.name, layer.name): layer
            for layer in executable.network.neuron_layers
        }
        self.executable, self.schedule, self.seed = executable.in_steps, schedule, seed
        self.watch = watch
        self.machine = schedule.program.machine
        self.layers = self.executable.network.layers
        self.place = {work.layer.name: n for n, work in enumerate(schedule.program.layers)}
        self.bounds = _bounds(self.executable, schedule, calibration)

    def begin(self, inputs: Tensor, count: int) -> CleanBlock:
        """Run a block without faults and keep every layer's outputs; `count` images are real."""
        with torch.inference_mode():
            values = {INPUT: self.executable.images(inputs)}
            for layer in self.layers:
                output = self.executable.run_layer(layer, *_read(values, layer))
                if layer.name in self.bounds:
                    output = self.bounds[layer.name].hold(output)
                values[layer.name] = output
            outputs = values[self.layers[-1].name][:count].flatten(1)
            best = outputs.float().nan_to_num(0.0).topk(min(TOP, outputs.shape[1])).indices
            clean = CleanBlock(count, values, top1(outputs), best.cpu().numpy())
        self.take_over(clean)
        return clean

    def take_over(self, clean: CleanBlock) -> None:
        """Take what was found without faults before, by this runner or another one.

        No machine changes what a network answers without faults, unless its lanes clip.
        """
        self.count, self.values = clean.count, clean.values
        self.classes, self.best = clean.classes, clean.best

    def strike(
        self, arrivals: Sequence[Arrivals], hooks: Sequence[OutputHook], found: Inferences,
        realisation: int, start: int, inference: int | None = None,
    ) -> Counts:  # fmt: skip
        """Run the block under what strikes its images, and note what comes of each.

        `hooks` strike the outputs of all layers, once stored: the paper's faults. `start` is the
        place in `found` of the block's first inference, and its number in the mission too, if
        `inference` does not give another. Returns the waves that ran again, as in
        `InjectionResult`.
        """
        mine = slice(start, start + self.count)
        number = start if inference is None else inference
        hits = self._hits_by_layer(arrivals, realisation, number)
        wrong = words_by_layer(arrivals)
        found.struck[realisation, mine] += [each.words for each in arrivals]
        found.detected[realisation, mine] |= [each.detected for each in arrivals]
        found.noticed[realisation, mine] = [each.noticed for each in arrivals]
        for work in sorted({*hits, *wrong}, reverse=True):
            images: list[int | None] = list(wrong.get(work, ()))
            for of_array in hits.get(work, {}).values():
                images += np.unique(of_array.first.image).tolist()
            for image in images:
                struck = slice(None) if image is None else image
                found.layer[realisation, mine][struck] = work
        if not hits and not wrong and not hooks:
            found.predicted[realisation, mine] = self.classes
            self._note_finite(self.classes, found, realisation, start)
            return np.empty((0, 4), np.int64)
        with torch.inference_mode():
            values, outcomes = self._forward(hits, wrong, hooks)
            return self._note(values, outcomes, found, realisation, start)

    def _hits_by_layer(
        self, arrivals: Sequence[Arrivals], realisation: int = 0, start: int = 0
    ) -> dict[int, dict[str, ArrayHits]]:
        """Gather the hits of all images by layer and array."""
        inferences = start + np.arange(len(arrivals))
        found: dict[int, dict[str, ArrayHits]] = {}
        for array in DOMAINS:
            scheme = self.machine.scheme_of(array)
            first: dict[int, list[Struck]] = {}
            again: dict[int, list[Struck]] = {}
            for image, each in enumerate(arrivals):
                attempts = each.hits[array]
                for into, part in ((first, attempts.first), (again, attempts.again)):
                    for work, struck in split_hits(part, image).items():
                        into.setdefault(work, []).append(struck)
            for work, parts in first.items():
                second = Struck.join(again.get(work, [Struck.none()]))
                found.setdefault(work, {})[array] = ArrayHits(
                    scheme, Struck.join(parts), second,
                    Notices(self.seed, array, work, realisation, inferences),
                    ChecksumLanes.of(self.schedule.program.layers[work], array)
                    if scheme.checksum_row else None,
                )  # fmt: skip
        return found

    def _forward(
        self, hits: Mapping[int, ByArray], wrong: Mapping[int, ByImage],
        hooks: Sequence[OutputHook] = (),
    ) -> tuple[dict[str, Tensor], list[LayerOutcome]]:  # fmt: skip
        """Compute what depends on struck layers; all else is as it was without faults."""
        values, outcomes = dict(self.values), []
        changed: set[str] = set()
        for layer in self.layers:
            place = self.place.get(layer.name)
            struck = place is not None and (place in hits or place in wrong)
            struck |= bool(hooks) and layer.name in self.neuron_layers
            if not struck and changed.isdisjoint(layer.sources):
                continue
            output, operands = values[layer.name], _read(values, layer)
            if not changed.isdisjoint(layer.sources):
                output = self.executable.run_layer(layer, *operands)
            of_layer = wrong.get(place, {}) if place is not None else {}
            views = [View(self.executable, tuple(operands))]
            views += self._views(layer, operands, of_layer)
            if len(views) > 1:
                output = outputs_of(layer, views, output)
            on_arrays = hits.get(place, {}) if place is not None else {}
            bounds = self.bounds.get(layer.name)
            unstruck = output
            output, outcome = strike_layer(layer, views, output, on_arrays, bounds)
            outcomes.append(outcome)
            if self.watch is not None and on_arrays:
                self.watch(layer, bounds.hold(unstruck) if bounds else unstruck, output)
            if layer.name in self.neuron_layers:
                for hook in hooks:
                    before = output  # may be the kept one without faults, and hooks work in place
                    output = hook(self.neuron_layers[layer.name], operands[0], before.clone())
                    outcome.changed[:] += changed_outputs(before, output)
            values[layer.name] = self._read_answers(layer, output, of_layer)
            if not equal_bits(values[layer.name], self.values[layer.name]).all():
                changed.add(layer.name)
        return values, outcomes

    def _views(self, layer: Layer, operands: Sequence[Tensor], wrong: ByImage) -> list[View]:
        read = {
            image: rows[(rows.kind != ANSWERS) & (rows.kind != ANSWER_BITS)]
            for image, rows in wrong.items()
        }
        mine = {image: rows for image, rows in read.items() if len(rows)}
        if not mine:
            return []
        return views_of(self.executable, layer, operands, mine, self.schedule.storage)

    def _read_answers(self, layer: Layer, output: Tensor, wrong: ByImage) -> Tensor:
        """Return outputs of the last layer as they are read: wrong where they lie."""
        for image, rows in wrong.items():
            values, bits = (rows[rows.kind == kind] for kind in (ANSWERS, ANSWER_BITS))
            part = slice(None) if image is None else slice(image, image + 1)
            if len(values) or len(bits):
                words = as_words(output[part])
                change_rows(self.executable, layer, words, values)
                misread(words, self.place[layer.name], bits.place, self.schedule.storage)
                output = output.clone(memory_format=torch.preserve_format)
                output[part] = as_tensor(words, output[part])
        return output

    def _answers_of(self, values: Mapping[str, Tensor]) -> Tensor:
        """Return the network's outputs of the real images, images x classes."""
        return values[self.layers[-1].name][: self.count].flatten(1)

    def _note(
        self, values: Mapping[str, Tensor], outcomes: Sequence[LayerOutcome], found: Inferences,
        realisation: int, start: int,
    ) -> Counts:  # fmt: skip
        """Note classes, bits, DUEs and repeated waves of the block's inferences."""
        mine = slice(start, start + self.count)
        outputs = self._answers_of(values)
        classes = top1(outputs)
        found.predicted[realisation, mine] = classes
        found.in_top5[realisation, mine] = (self.best == classes[:, None]).any(axis=1)
        found.equal[realisation, mine] = _same_bits(outputs, self._answers_of(self.values))
        waves = [np.empty((0, 4), np.int64)]
        for outcome in outcomes:
            found.changed[realisation, mine] += outcome.changed[: self.count]
            found.detected[realisation, start + outcome.failed] = True
            found.noticed[realisation, start + outcome.reported] = True
            for array, repeated in outcome.repeated.items():
                image = start + repeated[:, 0]
                np.add.at(found.repeated[realisation], image, 1)
                same = np.ones_like(image)
                rows = realisation * same, image, DOMAINS.index(array) * same, repeated[:, 1]
                waves.append(np.stack(rows, axis=1))
        self._note_finite(classes, found, realisation, start)
        return np.concatenate(waves)

    def _note_finite(
        self, classes: NDArray[np.int16], found: Inferences, realisation: int, start: int
    ) -> None:
        """Note outputs that are not finite: a DUE where the controller checks them."""
        lost = classes == NOT_FINITE
        mine = slice(start, start + self.count)
        found.in_top5[realisation, mine] &= ~lost
        if self.machine.controller.checks_outputs:
            found.detected[realisation, mine] |= lost


def _read(values: Mapping[str, Tensor], layer: Layer) -> list[Tensor]:
    """Return the outputs that a layer reads."""
    return [values[source] for source in layer.sources]


def words_by_layer(arrivals: Sequence[Arrivals]) -> dict[int, dict[int | None, Corruptions]]:
    """Gather the wrong words by the layer that reads them, and by image (None: all images).

    An image with wrong words of its own reads those of all images too.
    """
    tables: list[tuple[int | None, Corruptions]] = [(None, arrivals[0].shared)]
    tables += [(image, each.own) for image, each in enumerate(arrivals)]
    found: dict[int, dict[int | None, Corruptions]] = {}
    for image, rows in tables:
        for work in np.unique(rows.work).tolist():
            of_layer = found.setdefault(work, {})
            mine = rows[rows.work == work]
            if image is not None and None in of_layer:
                mine = Corruptions.join([of_layer[None], mine])
            of_layer[image] = mine
    return found


def _bounds(
    executable: Executable, schedule: Schedule, calibration: Calibration | None
) -> dict[str, Bounds]:
    """Return the ranges of layers with neurons on lanes that clip."""
    machine = schedule.program.machine
    clips = {name for name, array in machine.arrays.items() if array.clip}
    if not clips:
        return {}
    if calibration is None:
        raise InputError(
            "lanes that clip need the ranges of a calibration: make one with "
            "calibrate(network, images) on training images, and pass it as calibration=..."
        )
    found = {}
    for work in schedule.program.layers:
        masks = [share.mask for share in work.shares if share.plan and share.array in clips]
        if masks:
            name = work.layer.name
            ends = np.array([calibration.smallest[name], calibration.largest[name]], np.float32)
            if not executable.is_read_out(work.layer):
                ends = executable.format.round(ends / np.float32(executable.step(name)))
            low, high = (float(end) for end in ends)
            mask = np.logical_or.reduce(masks)
            found[name] = Bounds(low, high, mask, executable.device)
    return found


def _same_bits(left: Tensor, right: Tensor) -> NDArray[np.bool_]:
    """Tell which rows hold the same bits, NaNs and signs of zero included."""
    return equal_bits(left, right).all(dim=1).cpu().numpy()

"""What a lane computes while it is struck: its multiply-accumulates, one step after another.

A struck neuron is recomputed in the order of its lane: the bias, then input channel by input
channel, kernel row by kernel row. Products and sums of fp32 are float32 and round after each; fp16
and bf16 operands are multiplied and summed in float32; int8 operands are summed in int32, modulo
2^32. Many neurons of a layer are stepped side by side, and none is reordered.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nce_sim.faults.hits import ACCUMULATOR, INPUT, RESULT, WEIGHT, Hits
from nce_sim.faults.table import Counts
from nce_sim.workload.execute import Executable
from nce_sim.workload.formats import NumberFormat
from nce_sim.workload.layer import Kind, Layer

MOST_OPERANDS = 1 << 22
"""Operands of one kind that are held at a time: 16 MiB."""

Sums = NDArray[Any]
"""float32 or int32, as the format sums."""

Operands = NDArray[np.float32]


class LayerLanes:
    """The lanes of one layer, ready to step neurons of one block of images.

    `inputs` is float32 images x the layer's input shape, on the format's grid.
    """

    def __init__(self, executable: Executable, layer: Layer, inputs: Operands) -> None:
        self.layer, self.format = layer, executable.format
        self.weights = executable.lane_weights(layer)
        self.bias = executable.lane_bias(layer)
        self._inputs, self._base, self._offsets = _addresses(layer, inputs)

    def sums(
        self, images: Counts, neurons: Counts, hits: Hits, lanes: Counts
    ) -> tuple[Sums, NDArray[np.bool_]]:
        """Return the sums that lanes hand on, and which lanes show odd parity.

        Lane i computes neuron `neurons[i]` of image `images[i]`; `lanes` gives the lane of each
        hit. A lane shows odd parity if a register of it changed in an odd number of bits.
        """
        count = len(neurons)
        sums: Sums = np.empty(count, self.format.sum_dtype)
        odd = np.zeros(count, bool)
        at_once = max(1, MOST_OPERANDS // self.layer.reduction_length)
        for start in range(0, count, at_once):
            part = slice(start, start + at_once)
            mine = np.flatnonzero((lanes >= start) & (lanes < start + at_once))
            inputs, weights = self._operands(images[part], neurons[part])
            own = hits.take(mine), lanes[mine] - start
            bias = self.bias[neurons[part] // self.layer.positions]
            sums[part], odd[part] = step_lanes(self.format, inputs, weights, bias, *own)
        return sums, odd

    def _operands(self, images: Counts, neurons: Counts) -> tuple[Operands, Operands | None]:
        """Return inputs and weights, steps x lanes."""
        channels, positions = np.divmod(neurons, self.layer.positions)
        places = self._offsets[:, None] + self._base(images, channels, positions)
        inputs = self._inputs.take(places)
        return inputs, None if self.weights is None else self.weights[channels].T.copy()


def _addresses(
    layer: Layer, inputs: Operands
) -> tuple[Operands, Callable[[Counts, Counts, Counts], Counts], Counts]:
    """Return the padded inputs as one row, where a neuron's begin, and its steps from there."""
    if layer.kind is Kind.LINEAR:
        features = layer.in_shape[0]
        return inputs.ravel(), lambda image, *_: image * features, np.arange(features)
    (down, right), (tall, wide) = layer.padding, layer.kernel
    padded = np.pad(inputs, ((0, 0), (0, 0), (down, down), (right, right)))
    channels, height, width = padded.shape[1:]
    row = np.arange(tall)[:, None] * layer.dilation[0] * width
    taps = (row + np.arange(wide) * layer.dilation[1]).ravel()
    out_width = layer.out_shape[2] if len(layer.out_shape) == 3 else 1
    per_family = channels // layer.groups if layer.weights else 1
    out_per_family = layer.channels // layer.groups if layer.weights else 1

    def base(image: Counts, channel: Counts, position: Counts) -> Counts:
        first = image * channels + channel // out_per_family * per_family
        y, x = np.divmod(position, out_width)
        return first * height * width + y * layer.stride[0] * width + x * layer.stride[1]

    offsets = (np.arange(per_family)[:, None] * height * width + taps).ravel()
    return padded.ravel(), base, offsets


def step_lanes(
    number_format: NumberFormat,
    inputs: Operands,
    weights: Operands | None,
    start: Sums,
    hits: Hits,
    lanes: Counts,
) -> tuple[Sums, NDArray[np.bool_]]:
    """Step lanes from `start` through their operands (steps x lanes), and strike what is hit.

    Operands are on the format's grid and are overwritten; without weights the inputs are summed.
    Returns the sums that the lanes hand on, and which lanes show odd parity.
    """
    odd = np.zeros(len(start), bool)
    for target, operands in ((INPUT, inputs), (WEIGHT, weights)):
        if operands is not None:
            _strike_operands(number_format, operands, hits, lanes, target, odd)
    dtype = number_format.sum_dtype
    left = inputs.astype(dtype, copy=False)
    right = None if weights is None else weights.astype(dtype, copy=False)
    sums: Sums = start.astype(dtype)
    words, product = sums.view(np.uint32), np.empty_like(sums)
    strikes = _SumStrikes(hits, lanes)
    with np.errstate(all="ignore"):
        for step in range(len(left)):
            strikes.apply(step, words, odd)
            if right is None:
                np.add(sums, left[step], out=sums)
            else:
                np.multiply(left[step], right[step], out=product)
                np.add(sums, product, out=sums)
    strikes.apply(len(left), words, odd)
    _strike_words(words, hits, lanes, np.flatnonzero(hits.target == RESULT), None)
    return sums, odd


def _strike_operands(
    number_format: NumberFormat, operands: Operands, hits: Hits, lanes: Counts, target: int,
    odd: NDArray[np.bool_],
) -> None:  # fmt: skip
    """Strike a register in the steps in which it holds the operands (steps x lanes)."""
    width = np.uint32(2**number_format.bits - 1)
    struck = np.flatnonzero(hits.target == target)
    for turn in turns(lanes[struck]):
        now = struck[turn]
        length = hits.last[now] - hits.first[now] + 1
        each = now.repeat(length)
        step = np.arange(len(each)) - (np.cumsum(length) - length).repeat(length)
        step, lane = step + hits.first[each], lanes[each]
        before = number_format.encode(operands[step, lane])
        after = hits.take(each).change.of(before) & width
        operands[step, lane] = number_format.decode(after)
        odd[lane[np.bitwise_count(before ^ after) % 2 == 1]] = True


class _SumStrikes:
    """Strikes on sums, found by the number of steps that are done."""

    def __init__(self, hits: Hits, lanes: Counts) -> None:
        self.hits, self.lanes = hits, lanes
        on_sums = np.flatnonzero(hits.target == ACCUMULATOR)
        once = hits.first[on_sums] == hits.last[on_sums]
        self.lasting, self.none = on_sums[~once], np.empty(0, np.int64)
        single = on_sums[once][np.argsort(hits.first[on_sums[once]], kind="stable")]
        steps, starts = np.unique(hits.first[single], return_index=True)
        parts = np.split(single, starts[1:]) if len(single) else []
        self.single = dict(zip(steps.tolist(), parts, strict=True))

    def apply(self, step: int, words: NDArray[np.uint32], odd: NDArray[np.bool_]) -> None:
        """Strike the sums after so many steps, in the order of the hits."""
        now = self.single.get(step, self.none)
        if len(self.lasting):
            first, last = self.hits.first[self.lasting], self.hits.last[self.lasting]
            now = np.union1d(now, self.lasting[(first <= step) & (step <= last)])
        if len(now):
            _strike_words(words, self.hits, self.lanes, now, odd)


def _strike_words(
    words: NDArray[np.uint32], hits: Hits, lanes: Counts, struck: Counts,
    odd: NDArray[np.bool_] | None,
) -> None:  # fmt: skip
    """Change the words of lanes, hit after hit; mark lanes whose parity `odd` they turn."""
    for turn in turns(lanes[struck]):
        lane = lanes[struck[turn]]
        before = words[lane]
        words[lane] = hits.take(struck[turn]).change.of(before)
        if odd is not None:
            odd[lane[np.bitwise_count(before ^ words[lane]) % 2 == 1]] = True


def turns(places: Counts) -> Iterator[Counts]:
    """Cut entries into turns, in order, in none of which a place comes twice."""
    order = np.argsort(places, kind="stable")
    ordered = places[order]
    begins = np.flatnonzero(np.diff(ordered, prepend=-1))
    rank = np.arange(len(places)) - np.repeat(begins, np.diff(begins, append=len(places)))
    for turn in range(int(rank.max(initial=-1)) + 1):
        yield np.sort(order[rank == turn])

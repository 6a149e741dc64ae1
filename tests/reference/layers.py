"""Receptive fields and waves, walked through one neuron and one tap at a time."""

from collections import Counter
from dataclasses import dataclass
from math import ceil

from reference.maps import UNPROTECTED

from nce_sim.workload.layer import Kind

REPEATS = {"temporal_dmr": 2, "temporal_tmr": 3}


@dataclass(frozen=True)
class Wave:
    """Neurons, as (channel, position), that an array computes together, and what feeds them."""

    neurons: tuple
    activations: int
    weights: int


def taps(layer, row, column):
    """Yield the input position of each tap of an output position, whether inside the map or not."""
    for i in range(layer.kernel[0]):
        for j in range(layer.kernel[1]):
            yield (
                row * layer.stride[0] - layer.padding[0] + i * layer.dilation[0],
                column * layer.stride[1] - layer.padding[1] + j * layer.dilation[1],
            )


def is_inside(layer, row, column):
    return 0 <= row < layer.in_shape[1] and 0 <= column < layer.in_shape[2]


def out_width(layer):
    return layer.out_shape[2] if len(layer.out_shape) == 3 else 1


def family(layer, channel):
    """Return the group of a grouped layer that an output channel belongs to."""
    return channel // (layer.channels // layer.groups)


def elements_read(layer, source, neurons, first=0, stop=None):
    """Return the elements that neurons (channel, position) read in the range first to stop of K.

    Of a map, all taps of the input channels that the range touches.
    """
    stop = layer.reduction_length if stop is None else stop
    if layer.kind is Kind.LINEAR:
        return source.flat(first, stop) if neurons else set()
    if layer.kind is Kind.ADD:
        return {(channel, *divmod(position, out_width(layer))) for channel, position in neurons}
    size = layer.in_shape[0] // layer.groups
    found = set()
    for group, position in {(family(layer, channel), position) for channel, position in neurons}:
        for place in taps(layer, *divmod(position, out_width(layer))):
            if is_inside(layer, *place):
                for channel in range(first // layer.window, ceil(stop / layer.window)):
                    found.add((group * size + channel, *place))
    return found


def carried(layer, sources):
    """Return the mask of a pooling or an addition: unprotected where all parts are."""
    mask = {}
    for channel in range(layer.channels):
        for position in range(layer.positions):
            mask[channel, position] = all(
                source.holder(*element) == UNPROTECTED
                for source in sources
                for element in elements_read(layer, source, [(channel, position)], 0, 1)
            )
    return mask


class Lanes:
    """One array as it is in force for a layer."""

    def __init__(self, config, systolic, codec_cycles):
        self.config, self.systolic = config, systolic
        self.repeats = REPEATS.get(config.scheme, 1)
        skew = config.rows + config.columns - 2
        self.fill = (skew if systolic else config.pipeline_cycles) + codec_cycles

    def causes(self, wave, length, last):
        """Return the cycles of `length` of a wave's K multiply-accumulates, by cause."""
        macs = fed = ceil(length / self.config.macs_per_cycle)
        if not self.systolic:
            fed = max(
                macs,
                ceil(length * wave.activations / self.config.activation_words),
                ceil(length * wave.weights / self.config.weight_words),
            )
        fill = self.fill if last else 0
        cycles = {"compute": macs, "wait for operand ports": fed - macs, "fill the pipeline": fill}
        return Counter({cause: each * self.repeats for cause, each in cycles.items()})


def waves_of(plan, layer, neurons):
    """Return the waves (window, group, chunk) of neurons, as (channel, position)."""
    positions = {}
    for channel, position in sorted(neurons):
        positions.setdefault(channel, []).append(position)
    members = {}
    for place, channel in enumerate(plan.channel_order.tolist()):
        before = Counter()
        for position in positions.pop(channel, []):
            window = position // plan.window
            wave = window, place // plan.group_size, before[window] // plan.rows
            members.setdefault(wave, []).append((channel, position))
            before[window] += 1
    assert not positions, "the order of channels leaves neurons out"
    return {
        wave: Wave(
            tuple(found),
            len({(family(layer, channel), position) for channel, position in found}),
            len({channel for channel, _ in found}) if has_weights(layer) else 0,
        )
        for wave, found in members.items()
    }


def has_weights(layer):
    return layer.kind in (Kind.CONV2D, Kind.LINEAR)

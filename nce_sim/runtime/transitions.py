"""What changing from one split to another takes, once the inference under way has drained.

The controller reads the whole protection map of the new split from the protected region. Where
machines store weights in both regions (`weights: duplicate`), a channel whose weights the new split
needs in a region that lacks them is copied there from the other: it crosses the bus twice, read and
written, in a segment of its own on either side. Channels that a region has already stay where they
are, and those that it no longer needs are forgotten. With `protected_only` nothing is copied. A
layer is closed with the controller's barrier.

On a fabric, the columns are fused anew if the old program leaves other clusters behind than the new
one starts with. Buffers keep their owners, and hold nothing that is read again when an inference
has drained, so that nothing in them has to be moved.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nce_sim.config.machine_schema import MachineConfig, exact
from nce_sim.cost.activity import Activity, Moved
from nce_sim.machine.engine import Run
from nce_sim.protection.schemes import MEMORY_SCHEMES
from nce_sim.runtime.metering import Meter, at_rest
from nce_sim.schedule.domains import DOMAINS, FOREIGN, PROTECTED
from nce_sim.schedule.layout import ECC_WORD_BITS, Region
from nce_sim.schedule.program import LayerWork, Mask, Program
from nce_sim.schedule.tiles import BIAS_BYTES


@dataclass(frozen=True)
class Transition:
    """What changing from one split to another takes, beyond draining the inference under way.

    `map_bytes` are read and `weight_bytes` read or written over the bus, whole bursts with check
    bits. The columns of a fabric are fused anew `switches` times. `energy_aj` is that under the
    machine's own temperature and supply; `activity` counts what it is computed from.
    """

    map_bytes: int
    weight_bytes: int
    switches: int
    cycles: int
    energy_aj: int
    activity: Activity


class Copied(NamedTuple):
    """Channels of one layer that a domain's region gets from the other one."""

    domain: str
    channels: int
    bytes_of_channel: int


def transition(before: Run, after: Run, meter: Meter) -> Transition:
    """Return what changing from one run's split to another's takes, on the same machine."""
    machine = after.machine.config
    regions = Region.of(machine)
    map_bytes = sum(
        regions[PROTECTED].segment(work.map_bytes).moved_bytes for work in after.program.layers
    )
    read, written = dict.fromkeys(DOMAINS, 0), dict.fromkeys(DOMAINS, 0)
    for copy in copied_weights(before.program, after.program):
        source = FOREIGN[copy.domain]
        segment = {name: region.segment(copy.bytes_of_channel) for name, region in regions.items()}
        read[source] += copy.channels * segment[source].moved_bytes
        written[copy.domain] += copy.channels * segment[copy.domain].moved_bytes
    weight_bytes = sum(read.values()) + sum(written.values())
    switches = int(_left_behind(before.program) != _started_with(after.program))
    cycles = _cycles(machine, map_bytes + sum(read.values()), sum(written.values()), switches)
    activity = at_rest(
        cycles,
        memory=Moved(weight_bytes, 0, 0, 0, map_bytes),
        words=(
            _words(machine, map_bytes + read[PROTECTED]),
            _words(machine, written[PROTECTED]),
        ),
        switches=switches,
    )
    energy_aj = meter.rates().energy_aj([activity])
    return Transition(map_bytes, weight_bytes, switches, cycles, energy_aj, activity)


def copied_weights(before: Program, after: Program) -> Iterator[Copied]:
    """Yield what the new split needs in regions that do not have it, by layer and region."""
    if after.machine.weights == "protected_only":
        return
    for old, new in zip(before.layers, after.layers, strict=True):
        if not new.layer.weights:
            continue
        bias = BIAS_BYTES if new.layer.bias else 0
        bytes_of_channel = new.layer.reduction_length * after.element_bytes + bias
        for domain in DOMAINS:
            missing = held_channels(new, domain) & ~held_channels(old, domain)
            if missing.any():
                yield Copied(domain, int(np.count_nonzero(missing)), bytes_of_channel)


def held_channels(work: LayerWork, domain: str) -> Mask:
    """Mark the channels of a layer that any neuron of a domain belongs to."""
    held = np.zeros(work.layer.channels, bool)
    for share in work.shares:
        if share.domain == domain:
            held |= share.mask.reshape(work.layer.channels, -1).any(axis=1)
    return held


def _left_behind(program: Program) -> int:
    """Return the protected columns that are fused when an inference has ended."""
    return program.layers[-1].arrays[PROTECTED].columns


def _started_with(program: Program) -> int:
    return program.layers[0].arrays[PROTECTED].columns


def _cycles(machine: MachineConfig, read: int, written: int, switches: int) -> int:
    """Return the cycles of reading the map and the weights, writing these, and switching."""
    memory, bus = machine.memory, exact(machine.bus.bytes_per_cycle)
    efficiency = memory.efficiency
    moving = read / min(bus, memory.rate(efficiency.weights))
    moving += written / min(bus, memory.rate(efficiency.writes))
    waiting = memory.latency_cycles + memory.codec_cycles
    switching = switches * machine.fabric.switch_cycles if machine.fabric is not None else 0
    closing = machine.controller.cycles_per_barrier
    return -(-moving.numerator // moving.denominator) + waiting + switching + closing


def _words(machine: MachineConfig, moved_bytes: int) -> int:
    """Return the 64-bit words of data among bytes of the protected region."""
    check_bits = MEMORY_SCHEMES[machine.memory.protected_scheme].check_bits(ECC_WORD_BITS)
    return int(moved_bytes // ((ECC_WORD_BITS + check_bits) / 8))

"""What the machine did in one run: the counts that energy is computed from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import reduce
from typing import Any


@dataclass(frozen=True)
class DomainActivity:
    """Counts of one domain's array, vector unit and buffers, all images of a batch together.

    MACs and operand reads include the repeats of temporal schemes and of mismatches.
    `input_read_bytes` are read by the lanes and, for pooling and additions, by the vector unit.
    `vector_elements` are what that unit combines: values pooled or added, and what non-linearities
    with a slope or a table take.
    `lane_macs` counts every copy of a spatial scheme, `retried_macs` those of them that a mismatch
    made necessary, `useful_macs` each of the network's once; `checksum_adds` are additions of a
    checksum row, `clips` are outputs that were compared with their layer's range;
    `busy_lane_cycles` and `idle_lane_cycles` are cycles of lanes with and without a neuron while
    their array computes, `lane_wakes` how often lanes got a neuron after they had none;
    `padded_macs` of these multiply padding. `overflow_neurons` of the `neurons` are the other
    domain's. `output_bytes` leave the lanes; `resident_read_bytes` and `resident_written_bytes`
    move through the domain's resident buffer, crossings to the other domain included.
    `exchanged_bytes` of data come from or go to the rest of the machine, over the bus.
    """

    neurons: int
    overflow_neurons: int
    useful_macs: int
    padded_macs: int
    lane_macs: int
    retried_macs: int
    checksum_adds: int
    votes: int
    clips: int
    input_read_bytes: int
    weight_read_bytes: int
    input_written_bytes: int
    weight_written_bytes: int
    output_bytes: int
    resident_read_bytes: int
    resident_written_bytes: int
    exchanged_bytes: int
    vector_elements: int
    waves: int
    repeated_waves: int
    busy_lane_cycles: int
    idle_lane_cycles: int
    lane_wakes: int

    def __add__(self, other: "DomainActivity") -> "DomainActivity":
        return DomainActivity(**_sums(self, other))


@dataclass(frozen=True)
class Moved:
    """Bytes that moved, check bits and unused parts of bursts included, by what they were.

    `crossings` went from one domain's memory to the other's array, `outputs` are new maps, which
    spill where they go to external memory.
    """

    weights: int
    inputs: int
    crossings: int
    outputs: int
    protection_map: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(getattr(self, each.name) for each in fields(self))

    def __add__(self, other: "Moved") -> "Moved":
        return Moved(**_sums(self, other))


@dataclass(frozen=True)
class Activity:
    """Counts of one run, or of one layer of it.

    `bus` is all that moved on the bus, `memory` the part of it that came from or went to external
    memory. `crossing_bytes` are the data that one array read from the other domain.
    `memory_words_read` and `memory_words_written` are 64-bit words of data in the protected region,
    `rows_opened` activations of the memory's rows.
    """

    domains: Mapping[str, DomainActivity]
    bus: Moved
    memory: Moved
    crossing_bytes: int
    spilled_bytes: int
    map_bytes: int
    memory_words_read: int
    memory_words_written: int
    rows_opened: int
    refreshes: int
    tiles: int
    switches: int
    latency_cycles: int
    images: int

    @property
    def bus_bytes(self) -> int:
        """Bytes that moved on the bus."""
        return self.bus.total

    @property
    def memory_bytes(self) -> int:
        """Bytes that came from or went to external memory."""
        return self.memory.total

    def __add__(self, other: "Activity") -> "Activity":
        """Return the counts of both, which belong to the same images."""
        domains = {name: done + other.domains[name] for name, done in self.domains.items()}
        summed = _sums(self, other, leave_out=("domains", "images"))
        return Activity(domains=domains, images=self.images, **summed)


def _sums(one: Any, other: Any, leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the sum of every field of two records of a kind."""
    return {
        each.name: getattr(one, each.name) + getattr(other, each.name)
        for each in fields(one)
        if each.name not in leave_out
    }


def total(activities: Iterable[Activity]) -> Activity:
    """Return the sum of the activities of at least one layer."""
    return reduce(Activity.__add__, activities)

"""What the machine did in one inference: the counts that energy is computed from."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class DomainActivity:
    """Counts of one domain. MACs and operand reads include the repeats of temporal schemes.

    `input_read_bytes` are read by the lanes and, for the windows of pooling, by the vector unit.
    `lane_macs` counts every copy of a spatial scheme, `useful_macs` each of the network's once;
    `padded_macs` of these multiply padding. `output_bytes` leave the lanes; `resident_read_bytes`
    and `resident_written_bytes` move through the domain's resident buffer, crossings to the other
    domain included.
    """

    neurons: int
    useful_macs: int
    padded_macs: int
    lane_macs: int
    votes: int
    input_read_bytes: int
    weight_read_bytes: int
    input_written_bytes: int
    weight_written_bytes: int
    output_bytes: int
    resident_read_bytes: int
    resident_written_bytes: int
    vector_elements: int
    waves: int
    idle_lane_cycles: int


@dataclass(frozen=True)
class Activity:
    """Counts of one inference.

    `bus_bytes` is all that moved on the bus, check bits and unused parts of bursts included;
    `memory_bytes` of it came from or went to external memory. `crossing_bytes` are the data that
    one domain read from the other. `memory_words_read` and `memory_words_written` are 64-bit words
    of data in the protected region.
    """

    domains: Mapping[str, DomainActivity]
    bus_bytes: int
    memory_bytes: int
    crossing_bytes: int
    spilled_bytes: int
    map_bytes: int
    memory_words_read: int
    memory_words_written: int
    tiles: int
    latency_cycles: int

"""Area of a machine: the sum of its components with what their protection adds."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

from nce_sim.config.machine import BufferConfig, DomainConfig, FabricConfig, Machine
from nce_sim.config.technology import (
    BYTES_BY_FORMAT,
    ENDS,
    CodecFigures,
    End,
    NumberFormat,
    Technology,
)
from nce_sim.cost.sram import SramCost, sram_cost
from nce_sim.protection.schemes import ARRAY_SCHEMES, MEMORY_SCHEMES

UM2_PER_MM2 = 1e6
WORD_BITS = 64

BOUNDS = 2
"""Comparisons that hold an output within a range."""


@dataclass(frozen=True)
class Area:
    """Area by component, placed cells and macros times the wiring factor.

    `low_mm2` and `high_mm2` take every figure of the technology table at the end of its range.
    """

    by_component_mm2: Mapping[str, float]
    low_mm2: float
    high_mm2: float

    @property
    def total_mm2(self) -> float:
        """Sum of the components."""
        return sum(self.by_component_mm2.values())

    @property
    def logic_mm2(self) -> float:
        """All but the memories."""
        return sum(
            area for name, area in self.by_component_mm2.items() if not name.endswith("buffers")
        )

    @property
    def side_mm(self) -> float:
        """Side of a square of this area."""
        return sqrt(self.total_mm2)

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {area:.3f}" for name, area in self.by_component_mm2.items())
        return f"{self.total_mm2:.3f} mm2 [{self.low_mm2:.3f}, {self.high_mm2:.3f}]: {parts}"


def area(machine: Machine) -> Area:
    """Return the area of a machine."""
    nominal, low, high = (_components(machine, end) for end in ENDS)
    return Area(nominal, sum(low.values()), sum(high.values()))


def buffer_srams(buffers: BufferConfig, technology: Technology) -> dict[str, SramCost]:
    """Return the SRAMs of a domain: each half of the double buffers, and the resident buffer."""
    sizes = {
        "input": buffers.input_bytes,
        "weight": buffers.weight_bytes,
        "output": buffers.output_bytes,
        "resident": buffers.resident_bytes,
    }
    return {name: sram_cost(technology.sram, size) for name, size in sizes.items()}


HALVES = {"input": 2, "weight": 2, "output": 2, "resident": 1}
"""How many of each SRAM a domain has."""


def registers_of_mac(number_format: NumberFormat) -> float:
    """Return the registers of a multiplier-accumulator in units of 32 bits.

    Two hold the sum (with a shadow for draining), and two an operand each. Each step accesses as
    many: the sum is read and written, and both operands are latched.
    """
    return 2 + 2 * 8 * BYTES_BY_FORMAT[number_format] / 32


def codec_of(technology: Technology, scheme: str) -> CodecFigures | None:
    """Return the codec of a memory scheme; "none" and "ideal" have none."""
    return {"parity": technology.parity, "secded": technology.secded}.get(scheme)


def _components(machine: Machine, end: End) -> dict[str, float]:
    technology, config = machine.technology, machine.config

    parts = {}
    for name, domain in config.domains.items():
        parts[f"{name} lanes"] = (
            domain.array.lanes * lane_area_um2(machine, domain, end) / UM2_PER_MM2
        )
        parts[f"{name} buffers"] = _buffers_mm2(domain.buffers, technology, end)
        parts[f"{name} vector unit"] = (
            domain.vector_lanes * technology.vector_lane_area_um2.at(end) / UM2_PER_MM2
        )
    if config.fabric is not None:
        parts["protected lanes"] += _spare_voters_mm2(config.fabric, technology, end)
    parts["controller"] = technology.controller_area_mm2.at(end)
    codec = codec_of(technology, config.memory.protected_scheme)
    if codec is not None:
        parts["memory codec"] = codec.area_um2.at(end) / UM2_PER_MM2
    wiring = technology.wiring_factor.at(end)
    return {name: wiring * part for name, part in parts.items()}


def _spare_voters_mm2(fabric: FabricConfig, technology: Technology, end: End) -> float:
    """Return the area of the voters of clusters that could be fused and are not."""
    spare = fabric.rows * (fabric.most_clusters - fabric.clusters)
    return spare * technology.voter_32bit_area_um2.at(end) / UM2_PER_MM2


def lane_area_um2(machine: Machine, domain: DomainConfig, end: End = "value") -> float:
    """Return the area of one lane: copies of multiplier-accumulators and registers, one voter.

    A lane has a 32-bit accumulator, its shadow for draining, and two operand registers; a
    temporal scheme keeps the results of the earlier repeats.
    """
    technology, scheme = machine.technology, ARRAY_SCHEMES[domain.array.scheme]
    registers = registers_of_mac(machine.config.number_format)
    register = technology.register_32bit_area_um2.at(end)
    mac = technology.mac[machine.config.number_format].area_um2.at(end)
    area_um2 = scheme.copies * (mac * domain.array.macs_per_cycle + registers * register)
    if scheme.name in technology.lane_overheads:
        area_um2 *= 1 + technology.lane_overheads[scheme.name].area.at(end)
    area_um2 += (scheme.repeats - 1) * register
    if scheme.votes:
        area_um2 += technology.voter_32bit_area_um2.at(end)
    if domain.array.clip:
        area_um2 += BOUNDS * technology.comparator_area_um2.at(end)
    return area_um2


def _buffers_mm2(buffers: BufferConfig, technology: Technology, end: End) -> float:
    srams = buffer_srams(buffers, technology)
    scheme = MEMORY_SCHEMES[buffers.scheme]
    cells = sum(HALVES[name] * sram.area_mm2 for name, sram in srams.items())
    total = cells * scheme.storage_factor(WORD_BITS)
    codec = codec_of(technology, buffers.scheme)
    if codec is not None:
        total += sum(HALVES.values()) * codec.area_um2.at(end) / UM2_PER_MM2
    return total

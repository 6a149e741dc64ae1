"""Area of a machine: its parts, each from figures of the technology table, and their sums.

Free of a floor plan: placed cells and macros, times a factor for wiring, clock tree and filling.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import sqrt
from typing import Literal

from nce_sim.config.array_scheme import ArrayScheme
from nce_sim.config.figures import taken_at
from nce_sim.config.machine import Machine
from nce_sim.config.machine_schema import BufferConfig, DomainConfig
from nce_sim.config.technology import (
    BYTES_BY_FORMAT,
    ENDS,
    CodecFigures,
    End,
    NumberFormat,
    Technology,
)
from nce_sim.cost.sram import SramCost, sram_cost
from nce_sim.protection.schemes import MEMORY_SCHEMES

UM2_PER_MM2 = 1e6
CODEWORD_BITS = 64
"""Data bits that one codec of parity or SECDED works on."""

BOUNDS = 2
"""Comparisons that hold an output within a range."""

REGISTER_BITS = 32


def label_of(component: str, domain: str | None) -> str:
    """Return the name of a component, with its domain if it is not shared."""
    return component if domain is None else f"{domain} {component}"


@dataclass(frozen=True)
class Part:
    """Something that a machine has `count` times.

    `area_um2` is that of one, placed; `formula` says how it comes from the `figures`, which are
    paths in the technology table. `flip_flops` and `sram_bits`, check bits included, are the state
    of one.
    """

    component: str
    domain: str | None
    name: str
    count: int
    area_um2: float
    formula: str
    figures: tuple[str, ...]
    flip_flops: float = 0
    sram_bits: int = 0

    @property
    def label(self) -> str:
        """The component with its domain, if it is not shared."""
        return label_of(self.component, self.domain)


@dataclass(frozen=True)
class Area:
    """Area by part and by component, wiring included.

    `low_mm2` and `high_mm2` take every figure of the technology table at the end of its range.
    """

    parts: tuple[Part, ...]
    wiring_factor: float
    low_mm2: float
    high_mm2: float

    def of(self, part: Part) -> float:
        """Return the area of a part, all of its count together, in mm2."""
        return part.count * part.area_um2 * self.wiring_factor / UM2_PER_MM2

    @cached_property
    def by_component_mm2(self) -> Mapping[str, float]:
        """Area of each component of each domain, and of those that both share."""
        found: dict[str, float] = {}
        for part in self.parts:
            found[part.label] = found.get(part.label, 0.0) + self.of(part)
        return found

    @cached_property
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
    low, high = (area_alone(at_end(machine, end)).total_mm2 for end in ENDS[1:])
    nominal = area_alone(machine)
    return Area(nominal.parts, nominal.wiring_factor, low, high)


def at_end(machine: Machine, end: End) -> Machine:
    """Return the machine with all figures of its technology and schemes at ends of their ranges."""
    config = machine.config
    schemes = tuple(_scheme_at(scheme, end) for scheme in config.schemes)
    return machine.model_copy(
        update={
            "technology": taken_at(machine.technology, end),
            "config": config.model_copy(update={"schemes": schemes}),
        }
    )


def _scheme_at(scheme: ArrayScheme, end: End) -> ArrayScheme:
    shares = {"energy_share": scheme.energy_share, "area_share": scheme.area_share}
    return scheme.model_copy(
        update={
            name: figure.model_copy(update={"value": figure.at(end)})
            for name, figure in shares.items()
            if figure is not None
        }
    )


def area_alone(machine: Machine) -> Area:
    """Return the area of a machine whose figures have no range."""
    found = Area(tuple(parts_of(machine)), machine.technology.wiring_factor.value, 0.0, 0.0)
    return replace(found, low_mm2=found.total_mm2, high_mm2=found.total_mm2)


def parts_of(machine: Machine) -> Iterator[Part]:
    """Yield everything that takes area on the chip."""
    technology, config = machine.technology, machine.config
    for name, domain in config.domains.items():
        yield from _lane_parts(machine, name, domain)
        yield from _buffer_parts(domain.buffers, technology, name)
        lane_um2 = technology.vector_lane_area_um2.value
        yield Part(
            "vector unit", name, "lanes", domain.vector_lanes, lane_um2, "vector_lane_area_um2",
            ("vector_lane_area_um2",), flip_flops=REGISTER_BITS,
        )  # fmt: skip
    controller_mm2 = technology.controller_area_mm2.value
    yield Part(
        "controller", None, "logic", 1, controller_mm2 * UM2_PER_MM2, "controller_area_mm2",
        ("controller_area_mm2", "fault_rates.logic_flip_flops_per_mm2"),
        flip_flops=controller_mm2 * technology.fault_rates.logic_flip_flops_per_mm2.value,
    )  # fmt: skip
    codec = codec_of(technology, config.memory.protected_scheme)
    if codec is not None:
        path = f"{config.memory.protected_scheme}.area_um2"
        yield Part("memory codec", None, "codec", 1, codec.area_um2.value, path, (path,))


def _lane_parts(machine: Machine, name: str, domain: DomainConfig) -> Iterator[Part]:
    """Yield what the lanes of a domain are made of; of a fabric, spare voters too."""
    lanes = domain.array.lanes
    if machine.config.scheme_of(name).checksum_row:
        yield from _checksum_parts(machine, name, domain)
    for part in lane_parts(machine, name, domain):
        count = part.count * lanes
        fabric = machine.config.fabric
        if fabric is not None and part.name == "voters":
            count += fabric.rows * (fabric.most_clusters - fabric.clusters)
        yield Part(
            part.component, name, part.name, count, part.area_um2, part.formula, part.figures,
            part.flip_flops,
        )  # fmt: skip


def _checksum_parts(machine: Machine, name: str, domain: DomainConfig) -> Iterator[Part]:
    """Yield a row of checksum lanes, the tree that adds up its inputs, and what compares it.

    A column has one adder for the sums of its lanes, and one that compares them with the checksum.
    """
    technology, array = machine.technology, domain.array
    number_format = machine.config.number_format
    registers = registers_of_mac(number_format)
    mac_path, register_path = f"mac.{number_format}.area_um2", "register_32bit_area_um2"
    yield Part(
        "lanes", name, "checksum lanes", array.columns,
        technology.mac[number_format].area_um2.value * array.macs_per_cycle
        + registers * technology.register_32bit_area_um2.value,
        f"{mac_path} x {array.macs_per_cycle} + {registers:g} x {register_path}",
        (mac_path, register_path), flip_flops=registers * REGISTER_BITS,
    )  # fmt: skip
    path = "adder_32bit_area_um2"
    yield Part(
        "lanes", name, "checksum adders", array.rows - 1 + 2 * array.columns,
        technology.adder_32bit_area_um2.value, path, (path,),
    )  # fmt: skip


def overhead_of(
    machine: Machine, scheme: ArrayScheme, what: Literal["energy", "area"]
) -> tuple[float, str, tuple[str, ...]]:
    """Return the share that a scheme adds to a lane, what it is called, and its figures.

    A machine's own scheme brings its figures; those of the others stand in the technology table.
    """
    own = scheme.energy_share if what == "energy" else scheme.area_share
    if own is not None:
        return own.value, f"{what}_share of scheme {scheme.name}", ()
    overheads = {str(name): shares for name, shares in machine.technology.lane_overheads.items()}
    if scheme.name not in overheads:
        return 0.0, "", ()
    path = f"lane_overheads.{scheme.name}.{what}"
    return getattr(overheads[scheme.name], what).value, path, (path,)


def lane_parts(machine: Machine, name: str, domain: DomainConfig) -> Iterator[Part]:
    """Yield what one lane of a domain is made of.

    A lane has copies of multiplier-accumulators and registers, and one voter or comparator; a
    temporal scheme keeps the results of the earlier repeats.
    """
    technology, array = machine.technology, domain.array
    scheme, number_format = machine.config.scheme_of(name), machine.config.number_format
    mac_path = f"mac.{number_format}.area_um2"
    macs = scheme.copies * array.macs_per_cycle
    mac_um2 = technology.mac[number_format].area_um2.value
    register_um2 = technology.register_32bit_area_um2.value
    registers = scheme.copies * registers_of_mac(number_format) + scheme.repeats - 1
    yield Part(
        "lanes", name, "multiplier-accumulators", macs, mac_um2, mac_path, (mac_path,)
    )  # fmt: skip
    yield Part(
        "lanes", name, "registers", 1, registers * register_um2,
        f"{registers:g} x register_32bit_area_um2", ("register_32bit_area_um2",),
        flip_flops=registers * REGISTER_BITS,
    )  # fmt: skip
    plain_um2 = scheme.copies * (
        mac_um2 * array.macs_per_cycle + registers_of_mac(number_format) * register_um2
    )
    plain = (mac_path, "register_32bit_area_um2")
    share, path, figures = overhead_of(machine, scheme, "area")
    if path:
        yield Part(
            "lanes", name, f"{scheme.name} logic", 1, plain_um2 * share,
            f"{path} x (multiplier-accumulators and registers)", (*figures, *plain),
        )  # fmt: skip
    if scheme.votes:
        yield Part(
            "lanes", name, "voters", 1, technology.voter_32bit_area_um2.value,
            "voter_32bit_area_um2", ("voter_32bit_area_um2",),
        )  # fmt: skip
    if array.clip:
        yield Part(
            "lanes", name, "range comparators", BOUNDS, technology.comparator_area_um2.value,
            "comparator_area_um2", ("comparator_area_um2",),
        )  # fmt: skip
    if array.power_gating:
        path = "leakage.gating_area_share"
        yield Part(
            "lanes", name, "sleep transistors", 1,
            technology.leakage.gating_area_share.value * plain_um2,
            f"{path} x (multiplier-accumulators and registers)", (path, *plain),
        )  # fmt: skip


def lane_area_um2(machine: Machine, name: str) -> float:
    """Return the placed area of one lane of a domain."""
    domain = machine.config.domains[name]
    return sum(part.count * part.area_um2 for part in lane_parts(machine, name, domain))


HALVES = {"input": 2, "weight": 2, "output": 2, "resident": 1}
"""How many of each buffer a domain has."""


def capacities_of(buffers: BufferConfig) -> dict[str, int]:
    """Return the bytes of each buffer of a domain, of one half where there are two."""
    return {
        "input": buffers.input_bytes,
        "weight": buffers.weight_bytes,
        "output": buffers.output_bytes,
        "resident": buffers.resident_bytes,
    }


def stored_bits(buffers: BufferConfig) -> int:
    """Return the bits of a word of a domain's banks, those of its check bits included."""
    check_bits = MEMORY_SCHEMES[buffers.scheme].check_bits(CODEWORD_BITS)
    return buffers.word_bits + buffers.word_bits // CODEWORD_BITS * check_bits


def buffer_srams(buffers: BufferConfig, technology: Technology) -> dict[str, SramCost]:
    """Return the SRAMs of a domain: one half of the double buffers, and the resident buffer."""
    return {
        name: sram_cost(technology.sram, size, stored_bits(buffers), buffers.cell_type)
        for name, size in capacities_of(buffers).items()
    }


def _buffer_parts(
    buffers: BufferConfig, technology: Technology, domain: str
) -> Iterator[Part]:  # fmt: skip
    bits, capacities = stored_bits(buffers), capacities_of(buffers)
    for name, sram in buffer_srams(buffers, technology).items():
        if sram.banks == 0:
            continue
        kib = capacities[name] / sram.banks / 1024
        yield Part(
            "buffers", domain, f"{name} cells", HALVES[name], sram.area_mm2 * UM2_PER_MM2,
            f"{sram.banks} x {kib:.4g} KiB, {bits}-bit words, by the fit of sram.rows",
            ("sram.area_factor",), sram_bits=capacities[name] * 8 * bits // buffers.word_bits,
        )  # fmt: skip
    codec = codec_of(technology, buffers.scheme)
    if codec is not None:
        used = sum(HALVES[name] for name, size in capacities.items() if size)
        count = used * buffers.word_bits // CODEWORD_BITS
        path = f"{buffers.scheme}.area_um2"
        yield Part("buffers", domain, "codecs", count, codec.area_um2.value, path, (path,))


def registers_of_mac(number_format: NumberFormat) -> float:
    """Return the registers of a multiplier-accumulator in units of 32 bits.

    Two hold the sum (with a shadow for draining), and two an operand each. Each step accesses as
    many: the sum is read and written, and both operands are latched.
    """
    return 2 + 2 * 8 * BYTES_BY_FORMAT[number_format] / REGISTER_BITS


def codec_of(technology: Technology, scheme: str) -> CodecFigures | None:
    """Return the codec of a memory scheme; "none" and "ideal" have none."""
    return {"parity": technology.parity, "secded": technology.secded}.get(scheme)

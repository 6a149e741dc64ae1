"""The engine as an FMEDA sees it: pieces of hardware whose faults have one effect each.

Areas and states come from the cost model. Three registers that it leaves out are added, from the
sites of fault injection: those of columns, of stored outputs, and of the bus.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Literal

from nce_sim.config.machine import Machine
from nce_sim.config.technology import BYTES_BY_FORMAT
from nce_sim.cost.area import (
    CODEWORD_BITS,
    HALVES,
    REGISTER_BITS,
    UM2_PER_MM2,
    Area,
    Part,
    area,
    capacities_of,
)
from nce_sim.faults.sites import SUM_BITS, LaneSpace, Site
from nce_sim.protection.coverage import LanePart, coverage, parts_of
from nce_sim.protection.schemes import MEMORY_SCHEMES, ArrayScheme, MemoryScheme
from nce_sim.schedule.domains import PROTECTED

IDEAL = "ideal"
EXTERNAL_MEMORY = "external memory"
CONTROLLER = "controller"


@dataclass(frozen=True)
class Usage:
    """What a run uses beside the chip's own state: neurons in the map, bits of each region."""

    neurons: int
    memory_bits: Mapping[str, int]


@dataclass(frozen=True)
class Element:
    """Hardware whose faults have one effect.

    `flips_at` and `sticks_at` are the sites where injection measures what transient and permanent
    faults do; None where it cannot. `scheme` is what stands between a fault and the answer, and
    `part` the name under which the scheme knows the element.
    `transient_factor` is the upset rate against that of ordinary cells, below 1 if hardened.
    """

    component: str
    name: str
    scheme: ArrayScheme | MemoryScheme | None = None
    part: LanePart | Literal["word"] | None = None
    flip_flops: float = 0.0
    sram_bits: float = 0.0
    dram_bits: float = 0.0
    logic_mm2: float = 0.0
    transient_factor: float = 1.0
    flips_at: Site | None = None
    sticks_at: Site | None = None

    @property
    def is_check_bits(self) -> bool:
        """Whether it holds check bits and no data."""
        return self.part == "word" and self.flips_at is None

    @property
    def is_ideal(self) -> bool:
        """Whether it is never wrong by assumption."""
        return self.scheme is not None and self.scheme.name == IDEAL and self.part is not None

    @property
    def can_be_noticed(self) -> bool:
        """Whether anything in the engine, checks of its outputs apart, may detect a fault."""
        if isinstance(self.scheme, ArrayScheme):
            return self.scheme.detects_any
        return self.component == CONTROLLER or (self.scheme is not None and self.scheme.detects > 0)

    @property
    def scheme_name(self) -> str:
        """What protects it."""
        return "none" if self.scheme is None or self.part is None else self.scheme.name


def elements_of(machine: Machine, usage: Usage) -> Iterator[Element]:
    """Yield every element of the engine, then the external memory's."""
    chip = area(machine)
    for domain in machine.config.domains:
        yield from _lanes(machine, chip, domain)
        yield from _shared_registers(machine, chip, domain)
        yield from _buffers(machine, chip, domain)
    for part in chip.parts:
        if part.component not in ("lanes", "buffers"):
            yield _unmeasured(chip, part)
    yield from _joint(machine, chip, usage)
    yield from _external_memory(machine, usage)


def _unmeasured(
    chip: Area, part: Part, scheme: ArrayScheme | None = None, lane_part: LanePart | None = None
) -> Element:
    """Return a part that no site stands for."""
    return Element(
        part.label, part.name, scheme, lane_part, flip_flops=part.count * part.flip_flops,
        sram_bits=part.count * part.sram_bits, logic_mm2=chip.of(part),
    )  # fmt: skip


def _parts(chip: Area, component: str, domain: str) -> Iterator[Part]:
    return (part for part in chip.parts if (part.component, part.domain) == (component, domain))


def _lanes(machine: Machine, chip: Area, domain: str) -> Iterator[Element]:
    """Yield a lane's registers one by one, its arithmetic, and what checks or votes."""
    scheme = machine.config.scheme_of(domain)
    sums, voter = _stuck_sum(scheme, domain, "arithmetic", None), Site(domain, "voter")
    for part in _parts(chip, "lanes", domain):
        match part.name:
            case "registers":
                yield from _registers(machine, chip, part, scheme)
            case "multiplier-accumulators":
                yield Element(
                    part.label,
                    "arithmetic",
                    scheme,
                    "arithmetic",
                    logic_mm2=chip.of(part),
                    sticks_at=sums,
                )
            case "voters":
                yield Element(
                    part.label,
                    "voters",
                    scheme,
                    "voter",
                    logic_mm2=chip.of(part),
                    sticks_at=voter,
                )
            case _:
                check: LanePart | None = "check" if "check" in parts_of(scheme) else None
                checks = part.name == f"{scheme.name} logic" or part.name.startswith("checksum ")
                own = check if checks else None
                own = "arithmetic" if scheme.name == IDEAL else own
                yield _unmeasured(chip, part, scheme, own)


def _registers(
    machine: Machine, chip: Area, part: Part, scheme: ArrayScheme
) -> Iterator[Element]:  # fmt: skip
    """Yield the registers of all lanes of a domain: sums, drained sums, weights and inputs."""
    operand = scheme.copies * 8 * BYTES_BY_FORMAT[machine.config.number_format]
    kinds: dict[str, tuple[int, str, LanePart]] = {
        "sums": (SUM_BITS * scheme.copies, "accumulator", "accumulator"),
        "drained sums": (SUM_BITS * (scheme.copies + scheme.repeats - 1), "lane", "accumulator"),
        "weights": (operand, "weight", "operands"),
        "inputs": (operand, "input", "operands"),
    }
    for name, (bits, component, of_lane) in kinds.items():
        yield Element(
            part.label, f"registers of {name}", scheme, of_lane, flip_flops=part.count * bits,
            logic_mm2=chip.of(part) * bits / part.flip_flops,
            transient_factor=scheme.rate_factor, flips_at=Site(part.domain, component),
            sticks_at=_stuck_sum(scheme, part.domain, of_lane, Site(part.domain, component)),
        )  # fmt: skip


def _stuck_sum(
    scheme: ArrayScheme, domain: str | None, part: LanePart, other: Site | None
) -> Site | None:
    """Return the site of a stuck bit of the sum, which stands for all permanent faults of a lane.

    Where the scheme sees faults of this part less, or more, than those of the sum: `other`.
    """
    own, of_sum = (coverage(scheme, "permanent", each) for each in (part, "accumulator"))
    return Site(domain, "accumulator") if own.residual == of_sum.residual else other


def _shared_registers(machine: Machine, chip: Area, domain: str) -> Iterator[Element]:
    """Yield the registers before and behind the lanes, which the cost model leaves out."""
    config = machine.config
    scheme = config.scheme_of(domain)
    kinds: tuple[tuple[str, str, LanePart | None], ...] = (
        ("column", "registers of columns", "column"),
        ("output", "registers of outputs", "accumulator" if scheme.name == IDEAL else None),
    )
    for component, name, part in kinds:
        site = Site(domain, component)
        bits = LaneSpace.of(site, config).elements * site.word_bits(config)
        yield Element(
            f"{domain} lanes", name, scheme, part, flip_flops=bits,
            logic_mm2=_register_mm2(machine, chip, bits), transient_factor=scheme.rate_factor,
            flips_at=site,
        )  # fmt: skip


def _register_mm2(machine: Machine, chip: Area, bits: float) -> float:
    word_um2 = machine.technology.register_32bit_area_um2.value
    return bits / REGISTER_BITS * word_um2 * chip.wiring_factor / UM2_PER_MM2


def _buffers(machine: Machine, chip: Area, domain: str) -> Iterator[Element]:
    """Yield the data bits of each buffer, its check bits, and the codecs."""
    buffers = machine.config.domains[domain].buffers
    scheme = MEMORY_SCHEMES[buffers.scheme]
    for part in _parts(chip, "buffers", domain):
        if not part.sram_bits:
            yield _unmeasured(chip, part)
            continue
        name = part.name.removesuffix(" cells")
        data_bits = HALVES[name] * 8 * capacities_of(buffers)[name]
        check_bits = part.count * part.sram_bits - data_bits
        site = Site(domain, name if name == "resident" else f"{name}_buffer")
        yield Element(
            part.label, f"{name} data", scheme, "word", sram_bits=data_bits, flips_at=site,
            sticks_at=site,
        )  # fmt: skip
        if check_bits:
            yield Element(
                part.label, f"{name} check bits", scheme, "word", sram_bits=check_bits
            )  # fmt: skip


def _joint(machine: Machine, chip: Area, usage: Usage) -> Iterator[Element]:
    """Yield what both domains share beside the parts of the cost model."""
    yield Element(
        CONTROLLER, "protection map", sram_bits=usage.neurons,
        flips_at=Site(None, "protection_map"),
    )  # fmt: skip
    bits = ceil(8 * machine.config.bus.bytes_per_cycle)
    yield Element(
        "bus", "register of a beat", flip_flops=bits,
        logic_mm2=_register_mm2(machine, chip, bits), flips_at=Site(None, "bus"),
    )  # fmt: skip


def _external_memory(machine: Machine, usage: Usage) -> Iterator[Element]:
    for domain, bits in usage.memory_bits.items():
        own = machine.config.memory.protected_scheme if domain == PROTECTED else "none"
        scheme = MEMORY_SCHEMES[own]
        site = Site(domain, "memory")
        yield Element(
            EXTERNAL_MEMORY, f"{domain} data", scheme, "word", dram_bits=bits, flips_at=site,
            sticks_at=site,
        )  # fmt: skip
        check_bits = bits / CODEWORD_BITS * scheme.check_bits(CODEWORD_BITS)
        if check_bits:
            yield Element(
                EXTERNAL_MEMORY, f"{domain} check bits", scheme, "word", dram_bits=check_bits
            )  # fmt: skip

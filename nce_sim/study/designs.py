"""Designs that compete with the engine: how each differs from a base machine.

All are built in the base machine's technology, with its number format, dataflow, bus and memory.
Two rules make them comparable:

- `lanes`: as many lanes that compute useful neurons in a cycle as the base machine has, and as many
  bytes of buffers, whatever area that takes.
- `area`: as many columns of lanes as fit into the base machine's area, beside the same buffers.

A design without a split computes everything in the protected domain. The schema wants the other
one too: it gets one lane and the smallest buffers that cost what the smallest SRAM bank costs.
"""

from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

from nce_sim.config.machine import Machine
from nce_sim.config.machine_schema import DomainConfig, MachineConfig
from nce_sim.cost.area import area
from nce_sim.errors import InputError
from nce_sim.schedule.domains import DOMAINS, PROTECTED, UNPROTECTED

Equal = Literal["lanes", "area"]
EQUALS: tuple[Equal, ...] = ("lanes", "area")

SMALLEST_BANK_BYTES = 4096
"""The smallest SRAM of the technology tables: a smaller one would cost no less."""

QUANTUM_SHARE = 8
"""A machine's bus quantum is at most this part of its smallest buffer half."""


@dataclass(frozen=True)
class Design:
    """A way to protect the engine.

    With a `granularity`, neurons are split by units of that kind between the base machine's two
    domains. Without one, all lanes have one `scheme`, outputs may be clipped, and buffers and
    memory have SECDED (`codes_memories`) or nothing.
    """

    name: str
    label: str
    granularity: str | None = None
    scheme: str = "none"
    clip: bool = False
    codes_memories: bool = False

    @property
    def is_split(self) -> bool:
        """Whether it has a fraction to choose."""
        return self.granularity is not None


NOTHING, ECC, TMR = "nothing", "ecc", "tmr"
NEURON, CHANNEL, LAYER = "neuron", "channel", "layer"

DESIGNS = (
    Design(NEURON, "NCE, split by neuron", granularity="neuron"),
    Design(CHANNEL, "NCE, split by channel", granularity="channel"),
    Design(LAYER, "NCE, split by layer", granularity="layer"),
    Design(TMR, "TMR lanes, ECC", scheme="tmr", codes_memories=True),
    Design("lockstep", "Lockstep lanes, ECC", scheme="dmr_retry", codes_memories=True),
    Design(ECC, "ECC only", codes_memories=True),
    Design("clip", "Clipping only", clip=True),
    Design(NOTHING, "Nothing"),
)


@dataclass(frozen=True)
class Choice:
    """What is free in a design: the share of neurons on PEs, and a code for PEs' buffers."""

    fraction: float = 0.0
    pe_buffers: str = "none"


def choices_of(design: Design, fractions: tuple[float, ...]) -> list[Choice]:
    """Return the grid of a design; those without a split have one point."""
    if not design.is_split:
        return [Choice()]
    return [Choice(each, code) for code in ("none", "secded") for each in fractions]


def unused_domain(design: Design) -> str | None:
    """Return the domain that the design would not build."""
    return None if design.is_split else UNPROTECTED


def machine_of(design: Design, choice: Choice, base: Machine, equal: Equal) -> Machine:
    """Return the machine of a design under a rule of equal compute.

    Raises InputError for a base machine that the rules do not suit.
    """
    check_base(base)
    columns = sum(array.columns for array in base.config.arrays.values())
    if equal == "lanes":
        return _with_columns(design, choice, base, columns)
    if equal != "area":
        raise InputError(f"unknown rule '{equal}': known are {', '.join(EQUALS)}")
    return _largest_within(design, choice, base, area(base).total_mm2)


def check_base(base: Machine) -> None:
    """Raise InputError unless designs can be derived from a machine."""
    config = base.config
    if config.fabric is not None:
        raise InputError(
            f"machine '{config.name}' has a fabric: take one with dedicated arrays, whose columns "
            f"can be counted by domain"
        )
    rows = {array.rows for array in config.arrays.values()}
    macs = {array.macs_per_cycle for array in config.arrays.values()}
    if len(rows) > 1 or len(macs) > 1:
        raise InputError(
            f"machine '{config.name}' has PPE and PE columns of unlike lanes: lanes are counted "
            f"in columns, which need equal rows and macs_per_cycle"
        )


def _largest_within(design: Design, choice: Choice, base: Machine, most_mm2: float) -> Machine:
    """Return the machine of a design with the most columns whose area is not above `most_mm2`.

    The area rises with every column, so that halving an interval finds the last that fits.
    """
    fits = 1 + design.is_split  # a split has a column in each domain

    def total_mm2(columns: int) -> float:
        return area(_with_columns(design, choice, base, columns)).total_mm2

    if total_mm2(fits) > most_mm2:
        raise InputError(
            f"design '{design.name}' does not fit into the {most_mm2:.3f} mm2 of machine "
            f"'{base.config.name}' with a single column of lanes: take --equal lanes"
        )
    too_many = 2 * fits
    while total_mm2(too_many) <= most_mm2:
        fits, too_many = too_many, 2 * too_many
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if total_mm2(middle) <= most_mm2:
            fits = middle
        else:
            too_many = middle
    return _with_columns(design, choice, base, fits)


def _with_columns(design: Design, choice: Choice, base: Machine, columns: int) -> Machine:
    """Return the machine of a design with so many columns of lanes."""
    if design.is_split:
        content = _split_config(choice, base.config, columns)
    else:
        content = _whole_config(design, base.config, columns)
    content["name"] = f"{base.config.name}: {design.name}"
    content["description"] = design.label
    return base.model_copy(update={"config": MachineConfig.model_validate(content)})


def _split_config(choice: Choice, base: MachineConfig, columns: int) -> dict[str, Any]:
    """Return the base machine with its columns shared out as they were."""
    old = {name: array.columns for name, array in base.arrays.items()}
    protected = round(columns * old[PROTECTED] / sum(old.values()))
    protected = min(max(protected, 1), columns - 1)
    new = {PROTECTED: protected, UNPROTECTED: columns - protected}
    content = base.model_dump()
    for name in DOMAINS:
        content[name]["array"] |= _columns(base.domains[name], new[name])
    content[UNPROTECTED]["buffers"] |= _code(base, choice.pe_buffers)
    return content


def _whole_config(design: Design, base: MachineConfig, columns: int) -> dict[str, Any]:
    """Return a machine that computes everything in one domain, with the buffers of both."""
    code = "secded" if design.codes_memories else "none"
    content, own = base.model_dump(), base.protected
    content[PROTECTED]["array"] |= {
        **_columns(own, columns), "scheme": design.scheme, "clip": design.clip,
    }  # fmt: skip
    content[PROTECTED]["buffers"] |= {**_both_buffers(base), **_code(base, code)}
    content[PROTECTED]["vector_lanes"] = sum(each.vector_lanes for each in base.domains.values())
    content[PROTECTED]["supply_v"] = None
    content[UNPROTECTED] = _smallest(base).model_dump()
    content["bus"]["quantum_bytes"] = min(
        base.bus.quantum_bytes, _smallest_half(base) // QUANTUM_SHARE
    )
    content["memory"]["protected_scheme"] = code
    content["memory"]["codec_cycles"] = base.memory.codec_cycles if design.codes_memories else 0
    content["overflow"] = False
    return content


def _columns(domain: DomainConfig, columns: int) -> dict[str, int]:
    """Return an array's fields for another number of columns, each with its weight words."""
    words = max(1, domain.array.weight_words * columns // domain.array.columns)
    return {"columns": columns, "weight_words": words}


def _code(base: MachineConfig, scheme: str) -> dict[str, object]:
    """Return the fields of buffers for a code; its codec is as fast as the protected domain's."""
    cycles = base.protected.buffers.codec_cycles if scheme != "none" else 0
    return {"scheme": scheme, "codec_cycles": cycles}


def _both_buffers(base: MachineConfig) -> dict[str, float]:
    """Return the buffers of both domains together, and both their ports."""
    fields = (
        "input_bytes", "weight_bytes", "output_bytes", "resident_bytes", "port_bytes_per_cycle",
    )  # fmt: skip
    buffers = [each.buffers for each in base.domains.values()]
    return {name: sum(getattr(each, name) for each in buffers) for name in fields}


def _smallest_half(base: MachineConfig) -> int:
    """Return the bytes of each buffer half of a domain that is not used.

    Less than the smallest bank would cost as much, less than eight beats of the bus is not allowed.
    """
    eight_beats = ceil(QUANTUM_SHARE * base.bus.bytes_per_cycle)
    own = base.unprotected.buffers.smallest_half_bytes
    return min(own, max(SMALLEST_BANK_BYTES, eight_beats))


def _smallest(base: MachineConfig) -> DomainConfig:
    """Return the unprotected domain with as little in it as the schema allows."""
    half, own = _smallest_half(base), base.unprotected
    lane = {"rows": 1, "columns": 1, "macs_per_cycle": 1, "activation_words": 1, "weight_words": 1}
    plain = {"scheme": "none", "clip": False, "power_gating": False}
    halves = {"input_bytes": half, "weight_bytes": half, "output_bytes": half}
    bare = {"resident_bytes": 0, "scheme": "none", "codec_cycles": 0, "word_bits": 64}
    return own.model_copy(
        update={
            "array": own.array.model_copy(update={**lane, **plain}),
            "buffers": own.buffers.model_copy(update={**halves, **bare}),
            "vector_lanes": 1,
            "supply_v": None,
        }
    )


def idle_area_mm2(design: Design, machine: Machine) -> float:
    """Return the area of a design's machine that the design has no use for."""
    unused = unused_domain(design)
    chip = area(machine)
    return sum(chip.of(part) for part in chip.parts if unused is not None and part.domain == unused)

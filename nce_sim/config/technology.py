"""The schema of a technology table in `hw_configs/technology/`.

Every figure carries its unit in its name, a plausible range and its source, and says whether it
is an assumption.
"""

import re
from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from nce_sim.config.bundle import unknown_name
from nce_sim.config.loader import FieldError, Strict, load_yaml
from nce_sim.config.scaling import RULES, Point, scale_table
from nce_sim.errors import InputError

NumberFormat = Literal["int8", "fp16", "bf16", "fp32"]
BYTES_BY_FORMAT: dict[str, int] = {"int8": 1, "fp16": 2, "bf16": 2, "fp32": 4}
"""Bytes of an operand and of a stored neuron."""


End = Literal["value", "low", "high"]
"""Where in its range a figure is taken."""

ENDS: tuple[End, ...] = ("value", "low", "high")


class Figure(Strict):
    """A number with its range and where it comes from."""

    value: NonNegativeFloat
    low: NonNegativeFloat
    high: NonNegativeFloat
    source: str = Field(min_length=1)
    assumption: bool = Field(default=False, description="an estimate, not a published figure")

    def at(self, end: End) -> float:
        """Return the figure itself, or an end of its range."""
        return {"value": self.value, "low": self.low, "high": self.high}[end]

    @model_validator(mode="after")
    def _ordered(self) -> "Figure":
        if not self.low <= self.value <= self.high:
            raise ValueError(f"low <= value <= high fails: {self.low}, {self.value}, {self.high}")
        return self


class MacFigures(Strict):
    """A multiplier with the adder that accumulates its products."""

    energy_pj: Figure
    area_um2: Figure


class SramRow(Strict):
    """One SRAM bank."""

    capacity_kib: PositiveFloat
    word_bits: Literal[64, 72, 128, 144] = Field(description="check bits included")
    read_pj: PositiveFloat
    write_pj: PositiveFloat
    leakage_mw: PositiveFloat
    area_mm2: PositiveFloat
    cycle_ns: PositiveFloat


CellType = Literal["lstp", "lop", "hp"]
"""SRAM cells for low standby power, low operating power, and high performance."""


class SramFigures(Strict):
    """SRAM banks by size and word width; larger buffers are made of several banks.

    Power laws of the capacity are fitted through the rows, which are rough. The rows
    hold for cells of `cell_type`; `leakage_by_cell_type` is relative to them.
    """

    largest_bank_kib: PositiveInt
    cell_type: CellType
    source: str
    energy_factor: Figure = Field(description="on every row's energies: 1 and its range")
    area_factor: Figure = Field(description="on every row's area: 1 and its range")
    leakage_factor: Figure = Field(description="on every row's leakage: 1 and its range")
    leakage_by_cell_type: dict[CellType, Figure]
    rows: tuple[SramRow, ...] = Field(min_length=8, strict=False)

    @model_validator(mode="after")
    def _two_rows_a_width(self) -> Self:
        for bits in get_args(SramRow.model_fields["word_bits"].annotation):
            sizes = {row.capacity_kib for row in self.rows if row.word_bits == bits}
            if len(sizes) < 2:
                raise FieldError(
                    ("rows",), f"banks of at least 2 sizes with {bits}-bit words are needed"
                )
        return self


class VoltageFactor(Strict):
    """Leakage power at a share of the nominal voltage, relative to that at nominal voltage."""

    ratio: float = Field(gt=0, le=1)
    factor: float = Field(gt=0, le=1)


class LeakageFigures(Strict):
    """How leakage depends on temperature and voltage, and what gating saves."""

    doubling_k: Figure = Field(description="rise of temperature that doubles it")
    lowest_k: PositiveFloat = Field(description="the law is taken from here")
    highest_k: PositiveFloat = Field(description="to here, and refused beyond")
    by_voltage: tuple[VoltageFactor, ...] = Field(
        min_length=2, strict=False, description="by falling ratio from 1; interpolated"
    )
    by_voltage_source: str
    gated_share: Figure = Field(description="of a lane's leakage that is left while it is gated")
    gating_area_share: Figure = Field(description="that sleep transistors add to a gated lane")
    wake_pj: Figure = Field(description="to charge a lane's supply again")

    @model_validator(mode="after")
    def _falls(self) -> Self:
        if self.by_voltage[0].ratio != 1 or self.by_voltage[0].factor != 1:
            raise FieldError(("by_voltage", 0), "the first ratio and its factor must be 1")
        for index in range(1, len(self.by_voltage)):
            before, here = self.by_voltage[index - 1], self.by_voltage[index]
            if here.ratio >= before.ratio or here.factor > before.factor:
                raise FieldError(
                    ("by_voltage", index), "ratios must fall, and factors must not rise"
                )
        return self


class MemoryFigures(Strict):
    """One channel of an external memory, its interface included."""

    energy_pj_per_byte: Figure
    background_mw: Figure = Field(description="standby and refresh")
    upset_fit_per_mbit: Figure = Field(description="transient faults; 1 FIT is 1e-9 an hour")
    permanent_fit_per_mbit: Figure


class RateFigures(Strict):
    """Raw rates of faults on the chip, at the table's nominal voltage, in FIT (1e-9 an hour)."""

    sram_upset_fit_per_mbit: Figure
    flip_flop_upset_fit_per_mbit: Figure
    logic_transient_share: Figure = Field(
        description="latched transients of gates, as a share of the flip-flops' upsets"
    )
    sram_permanent_fit_per_mbit: Figure
    logic_permanent_fit_per_mm2: Figure
    logic_flip_flops_per_mm2: Figure = Field(
        description="of logic that is known by its area only, such as the controller"
    )


class CodecFigures(Strict):
    """Encoder and decoder of one 64-bit word's check bits, or a comparator or voter."""

    encode_pj: Figure
    decode_pj: Figure
    area_um2: Figure


LaneScheme = Literal["parity", "residue", "hardened"]
"""Schemes that add a share to a lane, and neither copies nor repeats."""

LANE_SCHEMES: tuple[str, ...] = get_args(LaneScheme)


class LaneOverhead(Strict):
    """What a scheme adds to a lane, as shares of its multiplier, adder and registers."""

    energy: Figure
    area: Figure


class Technology(Strict):
    """Energy by action and area by component at one node, voltage and temperature."""

    name: str
    description: str
    node_nm: PositiveFloat
    voltage_v: PositiveFloat
    temperature_k: PositiveFloat
    mac: dict[NumberFormat, MacFigures]
    register_32bit_access_pj: Figure
    register_32bit_area_um2: Figure
    voter_32bit_pj: Figure
    voter_32bit_area_um2: Figure
    lane_overheads: dict[LaneScheme, LaneOverhead]
    comparator_pj: Figure
    comparator_area_um2: Figure
    sram: SramFigures
    parity: CodecFigures
    secded: CodecFigures
    bus_pj_per_byte_mm: Figure
    memories: dict[str, MemoryFigures] = Field(min_length=1)
    vector_element_pj: Figure
    vector_lane_area_um2: Figure
    controller_tile_pj: Figure
    controller_cycle_pj: Figure
    controller_area_mm2: Figure
    logic_leakage_mw_per_mm2: Figure
    leakage: LeakageFigures
    level_shifter_pj_per_byte: Figure = Field(
        description="of data between supplies of two voltages"
    )
    regulator_efficiency: Figure = Field(description="of a supply below the nominal voltage")
    fault_rates: RateFigures
    wiring_factor: Figure


class Scaling(Strict):
    """From which table, and by which rule, the figures of another node are made."""

    table: str = Field(description="bundled, or by its path from this file; not scaled itself")
    rule: str
    error: float = Field(gt=0, description="the rule's stated relative error; widens every range")

    @model_validator(mode="after")
    def _known_rule(self) -> Self:
        if self.rule not in RULES:
            raise FieldError(("rule",), f"unknown rule '{self.rule}': known are {', '.join(RULES)}")
        stated = RULES[self.rule].error
        if self.error < stated:
            raise FieldError(("error",), f"at least {stated}, which the rule states, is needed")
        return self


class ScaledTable(Strict):
    """A technology table whose figures are scaled from those of another."""

    name: str
    description: str
    node_nm: PositiveFloat
    voltage_v: PositiveFloat
    temperature_k: PositiveFloat
    scaling: Scaling

    @property
    def point(self) -> Point:
        """Node and voltage to scale to."""
        return Point(self.node_nm, self.voltage_v)

    @model_validator(mode="after")
    def _within_the_rule(self) -> Self:
        refusal = RULES[self.scaling.rule].refusal(self.point)
        if refusal is not None:
            field, allowed = refusal
            raise FieldError((field,), allowed)
        return self


def load_technology(name: str, bundled_folder: Path, beside: Path) -> Technology:
    """Load a bundled table by name, or one by its path relative to the machine's file.

    A table with the key `scaling` is made from another. Raises InputError for an unknown name,
    for a file that does not fit the schema, and for a table that cannot be scaled.
    """
    path = _path_of(name, bundled_folder, beside)
    if _is_scaled(path):
        return _load_scaled(path, bundled_folder)
    return load_yaml(path, Technology)


def _path_of(name: str, bundled_folder: Path, beside: Path) -> Path:
    if name.endswith((".yaml", ".yml")):
        return beside / name
    path = bundled_folder / f"{name}.yaml"
    if not path.is_file():
        known = [table.stem for table in bundled_folder.glob("*.yaml")]
        raise unknown_name("technology", name, known)
    return path


def _is_scaled(path: Path) -> bool:
    """Look for the key that tells the two schemas apart, so that each names its own mistakes."""
    try:
        return (
            re.search(r"^scaling\s*:", path.read_text(encoding="utf-8"), re.MULTILINE) is not None
        )
    except (OSError, UnicodeDecodeError):
        return False  # load_yaml says why


def _load_scaled(path: Path, bundled_folder: Path) -> Technology:
    """Scale the table that `path` names; its node and voltage must suit the rule too."""
    wanted = load_yaml(path, ScaledTable)
    scaling = wanted.scaling
    try:
        source_path = _path_of(scaling.table, bundled_folder, path.parent)
    except InputError as reason:
        raise InputError(f"{path}: scaling.table: {reason}") from reason
    if _is_scaled(source_path):
        raise InputError(
            f"{path}: scaling.table: '{scaling.table}' is scaled itself: name a table of figures"
        )
    source = load_yaml(source_path, Technology)
    start = Point(source.node_nm, source.voltage_v)
    refusal = RULES[scaling.rule].refusal(start)
    if refusal is not None:
        raise InputError(f"{path}: scaling.table: {refusal[0]} of {source_path}: {refusal[1]}")
    if wanted.temperature_k != source.temperature_k:
        raise InputError(
            f"{path}: temperature_k: no rule scales it, so it must be that of '{scaling.table}', "
            f"{source.temperature_k:g} (found {wanted.temperature_k:g})"
        )
    content = scale_table(source.model_dump(), start, wanted.point, scaling.rule, scaling.error)
    return Technology.model_validate(content | wanted.model_dump(exclude={"scaling"}))

"""The schema of a technology table in `hw_configs/technology/`.

Every figure carries its unit in its name, a plausible range and its source, and says whether it
is an assumption.
"""

from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from nce_sim.config.bundle import unknown_name
from nce_sim.config.loader import Strict, load_yaml

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
    """One SRAM bank with 64-bit words."""

    capacity_kib: PositiveFloat
    read_pj: PositiveFloat
    write_pj: PositiveFloat
    leakage_mw: PositiveFloat
    area_mm2: PositiveFloat
    cycle_ns: PositiveFloat


class SramFigures(Strict):
    """SRAM banks by size; larger buffers are made of several banks."""

    largest_bank_kib: PositiveInt
    cell_type: str
    source: str
    rows: tuple[SramRow, ...] = Field(min_length=2, strict=False)


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
    memory_pj_per_byte: Figure
    memory_background_mw: Figure
    vector_element_pj: Figure
    vector_lane_area_um2: Figure
    controller_tile_pj: Figure
    controller_cycle_pj: Figure
    controller_area_mm2: Figure
    logic_leakage_mw_per_mm2: Figure
    wiring_factor: Figure


def load_technology(name: str, bundled_folder: Path, beside: Path) -> Technology:
    """Load a bundled table by name, or one by its path relative to the machine's file.

    Raises InputError for an unknown name and for a file that does not fit the schema.
    """
    if name.endswith((".yaml", ".yml")):
        return load_yaml(beside / name, Technology)
    path = bundled_folder / f"{name}.yaml"
    if not path.is_file():
        known = [table.stem for table in bundled_folder.glob("*.yaml")]
        raise unknown_name("technology", name, known)
    return load_yaml(path, Technology)

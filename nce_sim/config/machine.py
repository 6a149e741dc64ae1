"""The schema of a machine in `hw_configs/`."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from nce_sim.config.bundle import bundled, unknown_name
from nce_sim.config.loader import FieldError, Strict, load_yaml
from nce_sim.config.technology import (
    LANE_SCHEMES,
    CellType,
    NumberFormat,
    Technology,
    load_technology,
)
from nce_sim.config.voltage import OperatingPoint, VoltageTable, list_voltages, load_voltage
from nce_sim.errors import InputError

ArraySchemeName = Literal[
    "none", "ideal", "tmr", "dmr_retry", "temporal_dmr", "temporal_tmr", "parity", "residue",
    "hardened",
]  # fmt: skip
MemorySchemeName = Literal["none", "ideal", "parity", "secded"]
Rotation = Literal["none", "layers", "inferences", "repeats"]
NS_PER_US = 1000


class ArrayConfig(Strict):
    """An array of lanes. One lane multiplies and accumulates one neuron at a time."""

    rows: PositiveInt = Field(description="lanes of a column; each works on another position")
    columns: PositiveInt = Field(description="columns; each works on another channel")
    macs_per_cycle: PositiveInt = Field(description="multiply-accumulates of a lane in a cycle")
    activation_words: PositiveInt = Field(description="words a cycle from the input buffer")
    weight_words: PositiveInt = Field(description="words a cycle from the weight buffer")
    pipeline_cycles: int = Field(ge=0, description="fill of the pipeline, added to every wave")
    scheme: ArraySchemeName = Field(description="how the lanes are protected")
    clip: bool = Field(
        default=False,
        description="whether outputs are held within their layer's range on training images",
    )
    power_gating: bool = Field(
        default=False, description="whether a lane without a neuron is cut off its supply"
    )

    @property
    def lanes(self) -> int:
        """Number of lanes."""
        return self.rows * self.columns


class BufferConfig(Strict):
    """A domain's local memory. Input, weight and output buffers exist twice (double buffering)."""

    input_bytes: PositiveInt = Field(description="one of the two input buffers")
    weight_bytes: PositiveInt = Field(description="one of the two weight buffers")
    output_bytes: PositiveInt = Field(description="one of the two output buffers")
    resident_bytes: int = Field(ge=0, description="maps that stay on the chip between layers")
    port_bytes_per_cycle: PositiveFloat = Field(description="between resident and other buffers")
    scheme: MemorySchemeName = Field(description="how the words are protected")
    word_bits: Literal[64, 128] = Field(default=64, description="data bits of a word of its banks")
    cell_type: CellType | None = Field(
        default=None, description="of the cells; None: that of the technology table's rows"
    )
    codec_cycles: int = Field(
        ge=0, description="pipelined: lengthens the fill of every wave and crossings from here"
    )

    @property
    def smallest_half_bytes(self) -> int:
        """The smallest half of the double buffers: the least that bounds a tile."""
        return min(self.input_bytes, self.weight_bytes, self.output_bytes)


class DomainConfig(Strict):
    """The lanes and the local memory of one domain."""

    array: ArrayConfig
    buffers: BufferConfig
    vector_lanes: PositiveInt = Field(description="elements a cycle of the pooling unit")
    supply_v: PositiveFloat | None = Field(
        default=None,
        description="supply voltage of lanes, buffers and vector unit; None: the table's nominal",
    )


class FabricConfig(Strict):
    """Columns of PEs that are fused into PPEs: `fused` arrays, in place of two dedicated ones.

    A cluster is as many adjacent columns as the scheme has copies. Of C columns, x fused clusters
    give x columns of PPEs beside C - x * copies columns of PEs.
    """

    rows: PositiveInt = Field(description="lanes of a column")
    columns: PositiveInt = Field(description="physical columns")
    macs_per_cycle: PositiveInt = Field(description="multiply-accumulates of a lane in a cycle")
    activation_words_per_row: PositiveInt = Field(description="words a cycle, for each domain")
    weight_words_per_column: PositiveInt = Field(description="words a cycle and column")
    pipeline_cycles: int = Field(ge=0, description="fill of the pipeline, added to every wave")
    scheme: Literal["tmr", "dmr_retry"] = Field(description="how a fused cluster works")
    clusters: PositiveInt = Field(description="clusters that are fused at the start")
    fuse_per_layer: bool = Field(
        description="whether the controller fuses anew at layer boundaries where that pays"
    )
    switch_cycles: int = Field(ge=0, description="to drain, switch and refill; hidden by nothing")
    switch_pj: float = Field(ge=0, description="energy of one change of the fusing")
    clip: bool = Field(
        default=False,
        description="whether outputs are held within their layer's range on training images",
    )
    power_gating: bool = Field(
        default=False, description="whether a lane without a neuron is cut off its supply"
    )

    @property
    def cluster_columns(self) -> int:
        """Physical columns of a fused cluster."""
        return {"tmr": 3, "dmr_retry": 2}[self.scheme]

    @property
    def most_clusters(self) -> int:
        """Clusters that can be fused: at least one column of PEs stays."""
        return (self.columns - 1) // self.cluster_columns

    def arrays(self, clusters: int) -> dict[str, ArrayConfig]:
        """Return both domains' arrays while `clusters` clusters are fused."""
        single = self.columns - clusters * self.cluster_columns
        return {
            "protected": self._array(clusters, self.scheme),
            "unprotected": self._array(single, "none"),
        }

    def _array(self, columns: int, scheme: ArraySchemeName) -> ArrayConfig:
        return ArrayConfig(
            rows=self.rows,
            columns=columns,
            macs_per_cycle=self.macs_per_cycle,
            activation_words=self.rows * self.activation_words_per_row,
            weight_words=columns * self.weight_words_per_column,
            pipeline_cycles=self.pipeline_cycles,
            scheme=scheme,
            clip=self.clip,
            power_gating=self.power_gating,
        )


STAND_IN = FabricConfig(
    rows=1, columns=4, macs_per_cycle=1, activation_words_per_row=1, weight_words_per_column=1,
    pipeline_cycles=0, scheme="tmr", clusters=1, fuse_per_layer=False, switch_cycles=0,
    switch_pj=0.0,
)  # fmt: skip
"""In place of a fabric that is not usable, so that its arrays are not reported as missing."""


class BusConfig(Strict):
    """The one bus that joins both domains, the controller and the external memory."""

    bytes_per_cycle: PositiveFloat
    quantum_bytes: PositiveInt = Field(description="what a port may move before the next is asked")
    arbitration: Literal["round_robin", "priority"] = Field(
        description="among ports in fixed order: protected load and store, unprotected, controller"
    )
    length_factor: PositiveFloat = Field(description="length of the bus in units of sqrt(area)")


class EfficiencyConfig(Strict):
    """The share of the peak bandwidth that a kind of stream sustains, refresh apart."""

    weights: float = Field(gt=0, le=1, description="long reads")
    maps: float = Field(gt=0, le=1, description="reads of short segments")
    writes: float = Field(gt=0, le=1, description="writes of short segments")


class MemoryConfig(Strict):
    """The external memory: one channel behind the bus, one region for each domain."""

    kind: str = Field(description="one of the memories of the technology table, such as lpddr4")
    bytes_per_cycle: PositiveFloat = Field(description="peak, in bytes per NCE cycle")
    efficiency: EfficiencyConfig
    latency_cycles: int = Field(ge=0, description="from a request to its first byte; pipelined")
    outstanding_requests: PositiveInt = Field(description="bursts that a port may have under way")
    burst_bytes: PositiveInt = Field(description="the smallest transfer")
    row_bytes: PositiveInt = Field(description="a row (page); opening one is counted")
    refresh_interval_cycles: PositiveInt = Field(description="from one refresh to the next")
    refresh_cycles: int = Field(ge=0, description="that a refresh takes; spread evenly")
    protected_scheme: MemorySchemeName = Field(description="of the protected region; inline")
    codec_cycles: int = Field(ge=0, description="pipelined; reads from the protected region")
    scrub_interval_cycles: int | None = Field(
        default=None,
        ge=1_000_000,
        description="how often the protected region is read and corrected; None: never",
    )

    def rate(self, efficiency: float) -> Fraction:
        """Return the bytes a cycle that one port gets, at that share of the peak.

        Refreshes take their share, and by Little's law a port gets no more than its outstanding
        bursts in one latency.
        """
        refreshed = 1 - Fraction(self.refresh_cycles, self.refresh_interval_cycles)
        sustained = exact(self.bytes_per_cycle) * exact(efficiency) * refreshed
        if self.latency_cycles == 0:
            return sustained
        window = Fraction(self.outstanding_requests * self.burst_bytes, self.latency_cycles)
        return min(sustained, window)

    @model_validator(mode="after")
    def _leaves_time(self) -> Self:
        if self.refresh_cycles >= self.refresh_interval_cycles:
            raise FieldError(
                ("refresh_cycles",),
                f"is {self.refresh_cycles}: it must be below refresh_interval_cycles, "
                f"{self.refresh_interval_cycles}",
            )
        return self


class ControllerConfig(Strict):
    """The controller: it issues tiles and closes layers."""

    cycles_per_tile: int = Field(ge=0, description="hidden behind the tile before")
    cycles_per_barrier: int = Field(ge=0, description="between two layers, hidden by nothing")
    rotation: Rotation = Field(
        default="none",
        description="when neurons move on to other lanes: with each layer, inference or repeat",
    )
    checks_outputs: bool = Field(
        default=False,
        description="whether NaN or infinity in the network's output is noticed: a DUE, not an SDC",
    )


class MachineConfig(Strict):
    """A whole machine. Times are cycles of its one clock.

    Its arrays are `dedicated`, one for each domain, or share a `fabric` of columns that are fused.
    """

    name: str
    description: str
    technology: str = Field(description="a table of hw_configs/technology, or a path")
    voltage: str | None = Field(
        default=None, description="a table of hw_configs/voltage, or a path; for supplies"
    )
    temperature_k: PositiveFloat | None = Field(
        default=None, description="of the silicon, for leakage; None: the technology table's"
    )
    clock_mhz: PositiveFloat
    number_format: NumberFormat = Field(description="of operands; sums are 32 bits wide")
    dataflow: Literal["broadcast", "systolic_os"]
    layout: Literal["packed", "holes"] = Field(
        description="maps by rows of each channel: a domain's elements close up, or stay in place"
    )
    weights: Literal["duplicate", "protected_only"] = Field(
        description="whether weights that both domains use are stored in both regions"
    )
    overflow: bool = Field(description="whether idle PPEs take waves of unprotected neurons")
    fabric: FabricConfig | None = None
    protected: DomainConfig
    unprotected: DomainConfig
    bus: BusConfig
    memory: MemoryConfig
    controller: ControllerConfig

    @property
    def domains(self) -> dict[str, DomainConfig]:
        """Both domains by name."""
        return {"protected": self.protected, "unprotected": self.unprotected}

    @property
    def arrays(self) -> dict[str, ArrayConfig]:
        """Both arrays by domain; of a fabric, as it is fused at the start."""
        return {name: domain.array for name, domain in self.domains.items()}

    @property
    def ppe_ratio(self) -> float:
        """Share of the lanes that are protected."""
        protected, unprotected = self.protected.array.lanes, self.unprotected.array.lanes
        return protected / (protected + unprotected)

    @model_validator(mode="before")
    @classmethod
    def _fuse(cls, content: Any) -> Any:
        """Derive both arrays from the fabric, if there is one."""
        if not isinstance(content, dict) or not isinstance(content.get("fabric"), dict):
            return content
        for name in ("protected", "unprotected"):
            if isinstance(content.get(name), dict) and "array" in content[name]:
                raise FieldError((name, "array"), "it and fabric exclude each other: leave one out")
        try:
            fabric = FabricConfig.model_validate(content["fabric"])
        except ValidationError:  # it is reported with its line where the fabric itself is checked
            fabric = STAND_IN
        if fabric.most_clusters < 1:
            raise FieldError(
                ("fabric", "columns"),
                f"is {fabric.columns}: a cluster and a column of PEs beside it need at least "
                f"{fabric.cluster_columns + 1}",
            )
        if fabric.clusters > fabric.most_clusters:
            raise FieldError(
                ("fabric", "clusters"),
                f"is {fabric.clusters}: {fabric.columns} columns in clusters of "
                f"{fabric.cluster_columns} allow 1 to {fabric.most_clusters}",
            )
        content = dict(content)
        for name, array in fabric.arrays(fabric.clusters).items():
            if isinstance(content.get(name), dict):
                content[name] = {**content[name], "array": array.model_dump()}
        return content

    @model_validator(mode="after")
    def _residue_suits(self) -> Self:
        """A residue check follows whole numbers; rounding floats have no such code."""
        for name, domain in self.domains.items():
            if domain.array.scheme == "residue" and self.number_format != "int8":
                raise FieldError(
                    (name, "array", "scheme"),
                    f"is residue: it checks sums of whole numbers, and number_format is "
                    f"{self.number_format}: take int8, or another scheme",
                )
        return self

    @model_validator(mode="after")
    def _quantum_suits(self) -> Self:
        """An arbiter that gives a port a whole tile at a time would hide contention."""
        half = min(domain.buffers.smallest_half_bytes for domain in self.domains.values())
        quantum, width = self.bus.quantum_bytes, self.bus.bytes_per_cycle
        if quantum < width:
            raise FieldError(
                ("bus", "quantum_bytes"),
                f"is {quantum}: it must be at least what the bus moves in a cycle, {width:g}",
            )
        if quantum * 8 > half:
            raise FieldError(
                ("bus", "quantum_bytes"),
                f"is {quantum}: it may be at most an eighth of the smallest input, weight or "
                f"output buffer, {half // 8} bytes",
            )
        return self


def exact(decimal: float) -> Fraction:
    """Return the number that was written in decimal: 25.6 is 128/5."""
    return Fraction(str(decimal))


class Machine(Strict):
    """A machine with the technology table that it is built in, and what its supplies bring."""

    config: MachineConfig
    technology: Technology
    voltage: VoltageTable | None = None

    def supply_v(self, domain: str) -> float:
        """Return a domain's supply voltage."""
        return self.config.domains[domain].supply_v or self.technology.voltage_v

    def operating_points(self) -> dict[str, OperatingPoint]:
        """Return what fails in each domain that has a supply voltage of its own."""
        return {
            name: self.voltage.at(domain.supply_v, self.config.clock_mhz)
            for name, domain in self.config.domains.items()
            if self.voltage is not None and domain.supply_v is not None
        }


def load_machine(name_or_path: str | Path, technology: str | None = None) -> Machine:
    """Load a bundled machine by name, or any machine by the path of its YAML file.

    `technology`, a bundled table's name or a path, takes the place of the file's own.

    Raises InputError for an unknown name, for a file that does not fit the schema, for a number
    format, a scheme, a memory or a cell type without figures, and for a clock or a supply that its
    tables do not allow.
    """
    folder = bundled("hw_configs")
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = folder / f"{name_or_path}.yaml"
        if not path.is_file():
            raise unknown_name("machine", str(name_or_path), list_machines())
    config = load_yaml(path, MachineConfig)
    beside = path.parent if technology is None else Path()
    table = load_technology(technology or config.technology, folder / "technology", beside)
    voltage = None if config.voltage is None else load_voltage(config.voltage, path.parent)
    machine = Machine(config=config, technology=table, voltage=voltage)
    for mistake in chain(_without_figures(machine), _out_of_range(machine)):
        raise InputError(f"{path}: {mistake}")
    return machine


def _without_figures(machine: Machine) -> Iterator[str]:
    """Say which figures the technology table lacks."""
    config, technology = machine.config, machine.technology
    table = f"technology '{technology.name}'"
    if config.number_format not in technology.mac:
        yield (
            f"number_format {config.number_format} has no figures in {table}, "
            f"which knows {', '.join(technology.mac)}"
        )
    if config.memory.kind not in technology.memories:
        yield (
            f"memory.kind {config.memory.kind} has no figures in {table}, "
            f"which knows {', '.join(technology.memories)}"
        )
    for name, domain in config.domains.items():
        scheme, cell_type = domain.array.scheme, domain.buffers.cell_type
        if scheme in LANE_SCHEMES and scheme not in technology.lane_overheads:
            yield (
                f"{name}.array.scheme {scheme} has no figures in lane_overheads of {table}: "
                "add them, or take another scheme"
            )
        if cell_type is not None and cell_type not in technology.sram.leakage_by_cell_type:
            yield (
                f"{name}.buffers.cell_type {cell_type} has no figures in {table}, "
                f"which knows {', '.join(technology.sram.leakage_by_cell_type)}"
            )


def _out_of_range(machine: Machine) -> Iterator[str]:
    """Say which clock, temperature or supply the tables do not allow."""
    config, technology = machine.config, machine.technology
    leakage, temperature_k = technology.leakage, config.temperature_k
    if temperature_k is not None and not leakage.lowest_k <= temperature_k <= leakage.highest_k:
        yield (
            f"temperature_k is {temperature_k:g}: technology '{technology.name}' allows "
            f"{leakage.lowest_k:g} to {leakage.highest_k:g} K"
        )
    for name, domain in config.domains.items():
        slowest_ns = _slowest_bank_ns(domain.buffers, technology)
        if domain.supply_v is None:
            yield from _too_fast(config, "", slowest_ns, technology)
        else:
            yield from _unfit_supply(machine, name, domain.supply_v, slowest_ns)
    if config.fabric is not None and config.protected.supply_v != config.unprotected.supply_v:
        yield "protected.supply_v and unprotected.supply_v differ: a fabric's lanes share a supply"


def _slowest_bank_ns(buffers: BufferConfig, technology: Technology) -> float:
    """Return the cycle time of the slowest bank with the words of a domain's buffers."""
    checked = buffers.scheme in ("parity", "secded")
    bits = buffers.word_bits * 9 // 8 if checked else buffers.word_bits
    return max(row.cycle_ns for row in technology.sram.rows if row.word_bits == bits)


def _too_fast(
    config: MachineConfig, where: str, cycle_ns: float, technology: Technology
) -> Iterator[str]:
    if config.clock_mhz * cycle_ns > NS_PER_US:
        yield (
            f"clock_mhz is {config.clock_mhz:g}, but a buffer's bank of technology "
            f"'{technology.name}' cycles in {cycle_ns:.3f} ns{where}: at most "
            f"{NS_PER_US / cycle_ns:.0f} MHz"
        )


def _unfit_supply(
    machine: Machine, domain: str, supply_v: float, slowest_ns: float
) -> Iterator[str]:
    """Say what a supply other than nominal does not allow.

    PEs may miss the clock: that is a fault. PPEs and the banks of buffers must meet it.
    """
    config, technology, table = machine.config, machine.technology, machine.voltage
    field = f"{domain}.supply_v"
    if table is None:
        yield f"{field} is given: name the table of its fault rates in voltage, such as one of " + (
            ", ".join(list_voltages())
        )
        return
    if table.nominal_voltage_v != technology.voltage_v:
        yield (
            f"voltage table '{table.name}' has {table.nominal_voltage_v:g} V as nominal, "
            f"technology '{technology.name}' {technology.voltage_v:g} V: take a table for it"
        )
        return
    covered = table.limits
    lowest_v = max(covered.low_v, technology.leakage.by_voltage[-1].ratio * technology.voltage_v)
    if not lowest_v <= supply_v <= covered.high_v:
        yield (
            f"{field} is {supply_v:g}: voltage table '{table.name}' and the leakage figures of "
            f"technology '{technology.name}' allow {lowest_v:g} to {covered.high_v:g} V"
        )
        return
    if table.lanes.path_delay is None:
        yield f"{field} is given: voltage table '{table.name}' has no lanes.path_delay to slow it"
        return
    slower = table.slowdown(supply_v)
    yield from _too_fast(config, f" at {field} {supply_v:g} V", slowest_ns * slower, technology)
    limit_mhz = table.clock_limit_mhz(supply_v).best
    if domain == "protected" and config.clock_mhz > limit_mhz:
        yield (
            f"clock_mhz is {config.clock_mhz:g}, but at {field} {supply_v:g} V protected lanes "
            f"close at {limit_mhz:.0f} MHz (5 sigma, voltage table '{table.name}')"
        )


def list_machines() -> list[str]:
    """Return the names of the bundled machines."""
    return sorted(path.stem for path in bundled("hw_configs").glob("*.yaml"))

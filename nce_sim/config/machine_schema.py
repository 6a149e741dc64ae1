"""The schema of a machine in `hw_configs/`."""

from fractions import Fraction
from typing import Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from nce_sim.config.array_scheme import ARRAY_SCHEMES, WHOLE_NUMBER_CHECKS, ArrayScheme
from nce_sim.config.loader import FieldError, Strict
from nce_sim.config.technology import (
    CellType,
    NumberFormat,
)

MemorySchemeName = Literal["none", "ideal", "parity", "secded"]
Rotation = Literal["none", "layers", "inferences", "repeats"]


class ArrayConfig(Strict):
    """An array of lanes. One lane multiplies and accumulates one neuron at a time."""

    rows: PositiveInt = Field(description="lanes of a column; each works on another position")
    columns: PositiveInt = Field(description="columns; each works on another channel")
    macs_per_cycle: PositiveInt = Field(description="multiply-accumulates of a lane in a cycle")
    activation_words: PositiveInt = Field(description="words a cycle from the input buffer")
    weight_words: PositiveInt = Field(description="words a cycle from the weight buffer")
    pipeline_cycles: int = Field(ge=0, description="fill of the pipeline, added to every wave")
    scheme: str = Field(
        description="how the lanes are protected: a bundled scheme, or one of the file's `schemes`"
    )
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

    def _array(self, columns: int, scheme: str) -> ArrayConfig:
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
    schemes: tuple[ArrayScheme, ...] = Field(
        default=(), strict=False, description="array schemes of this machine, beside bundled ones"
    )
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

    def scheme_of(self, array: str) -> ArrayScheme:
        """Return the scheme that protects the lanes of a domain's array, however it is fused."""
        own = {scheme.name: scheme for scheme in self.schemes}
        return {**ARRAY_SCHEMES, **own}[self.arrays[array].scheme]

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
    def _schemes_are_new(self) -> Self:
        """Two schemes of one name would leave open which of them protects."""
        for number, scheme in enumerate(self.schemes):
            earlier = {each.name for each in self.schemes[:number]}
            if scheme.name in ARRAY_SCHEMES or scheme.name in earlier:
                kind = "a bundled scheme" if scheme.name in ARRAY_SCHEMES else "one above"
                raise FieldError(
                    ("schemes", number, "name"), f"is {scheme.name}, the name of {kind}"
                )
        return self

    @model_validator(mode="after")
    def _schemes_are_known(self) -> Self:
        own = [scheme.name for scheme in self.schemes]
        for name, array in self.arrays.items():
            if array.scheme not in (*ARRAY_SCHEMES, *own):
                bundled_names = ", ".join(f"'{each}'" for each in ARRAY_SCHEMES)
                mine = ", ".join(f"'{each}'" for each in own) or "which is empty or left out"
                raise FieldError(
                    (name, "array", "scheme"),
                    f"should be one of the bundled {bundled_names}, or of the file's own under "
                    f"schemes: {mine} (found '{array.scheme}')",
                )
        return self

    @model_validator(mode="after")
    def _checks_suit(self) -> Self:
        """Residues and checksums follow whole numbers; rounding floats have no such code."""
        for name in self.arrays:
            scheme = self.scheme_of(name)
            if scheme.check in WHOLE_NUMBER_CHECKS and self.number_format != "int8":
                raise FieldError(
                    (name, "array", "scheme"),
                    f"is {scheme.name}: it checks sums of whole numbers, and number_format is "
                    f"{self.number_format}: take int8, or another scheme",
                )
        return self

    @model_validator(mode="after")
    def _overflow_suits(self) -> Self:
        """A hole that a checksum needs computed may not be a neuron that overflowed there, too."""
        if self.overflow and self.scheme_of("protected").checksum_row:
            raise FieldError(
                ("overflow",),
                f"is true: lanes with the checksum row of {self.protected.array.scheme} compute "
                f"holes, and take no neurons of the other domain: set it to false",
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

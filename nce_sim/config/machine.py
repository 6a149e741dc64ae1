"""The schema of a machine in `hw_configs/`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from nce_sim.config.bundle import bundled, unknown_name
from nce_sim.config.loader import Strict, load_yaml
from nce_sim.config.technology import NumberFormat, Technology, load_technology
from nce_sim.errors import InputError

ArraySchemeName = Literal["none", "ideal", "tmr", "temporal_tmr"]
MemorySchemeName = Literal["none", "ideal", "parity", "secded"]


class ArrayConfig(Strict):
    """An array of lanes. One lane multiplies and accumulates one neuron at a time."""

    rows: PositiveInt = Field(description="lanes of a column; each works on another position")
    columns: PositiveInt = Field(description="columns; each works on another channel")
    macs_per_cycle: PositiveInt = Field(description="multiply-accumulates of a lane in a cycle")
    activation_words: PositiveInt = Field(description="words a cycle from the input buffer")
    weight_words: PositiveInt = Field(description="words a cycle from the weight buffer")
    pipeline_cycles: int = Field(ge=0, description="fill of the pipeline, added to every wave")
    scheme: ArraySchemeName = Field(description="how the lanes are protected")

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


class DomainConfig(Strict):
    """The lanes and the local memory of one domain."""

    array: ArrayConfig
    buffers: BufferConfig
    vector_lanes: PositiveInt = Field(description="elements a cycle of the pooling unit")


class BusConfig(Strict):
    """The one bus that joins both domains, the controller and the external memory."""

    bytes_per_cycle: PositiveFloat
    quantum_bytes: PositiveInt = Field(description="what a port may move before the next is asked")
    length_factor: PositiveFloat = Field(description="length of the bus in units of sqrt(area)")


class MemoryConfig(Strict):
    """The external memory: one channel behind the bus, one region for each domain."""

    bytes_per_cycle: PositiveFloat = Field(description="sustained, in bytes per NCE cycle")
    latency_cycles: int = Field(ge=0, description="from a request to its first byte")
    burst_bytes: PositiveInt = Field(description="the smallest transfer")
    protected_scheme: MemorySchemeName = Field(description="of the protected region; inline")


class ControllerConfig(Strict):
    """The controller: it issues tiles and closes layers."""

    cycles_per_tile: int = Field(ge=0, description="hidden behind the tile before")
    cycles_per_barrier: int = Field(ge=0, description="between two layers, hidden by nothing")


class MachineConfig(Strict):
    """A whole machine. Times are cycles of its one clock."""

    name: str
    description: str
    technology: str = Field(description="a table of hw_configs/technology, or a path")
    clock_mhz: PositiveFloat
    number_format: NumberFormat = Field(description="of operands; sums are 32 bits wide")
    dataflow: Literal["broadcast", "systolic_os"]
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
    def ppe_ratio(self) -> float:
        """Share of the lanes that are protected."""
        protected, unprotected = self.protected.array.lanes, self.unprotected.array.lanes
        return protected / (protected + unprotected)


class Machine(Strict):
    """A machine with the technology table that it is built in."""

    config: MachineConfig
    technology: Technology


def load_machine(name_or_path: str | Path) -> Machine:
    """Load a bundled machine by name, or any machine by the path of its YAML file.

    Raises InputError for an unknown name, for a file that does not fit the schema, and for a
    number format without figures.
    """
    folder = bundled("hw_configs")
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = folder / f"{name_or_path}.yaml"
        if not path.is_file():
            raise unknown_name("machine", str(name_or_path), list_machines())
    config = load_yaml(path, MachineConfig)
    technology = load_technology(config.technology, folder / "technology", path.parent)
    if config.number_format not in technology.mac:
        raise InputError(
            f"{path}: number_format {config.number_format} has no figures in technology "
            f"'{technology.name}', which knows {', '.join(technology.mac)}"
        )
    return Machine(config=config, technology=technology)


def list_machines() -> list[str]:
    """Return the names of the bundled machines."""
    return sorted(path.stem for path in bundled("hw_configs").glob("*.yaml"))

"""A machine with its tables: load it, and check that they fit together."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from pydantic import ValidationError

from nce_sim.config.array_scheme import ARRAY_SCHEMES, ArrayScheme
from nce_sim.config.bundle import bundled, named_file, names_in
from nce_sim.config.loader import Strict, load_yaml
from nce_sim.config.machine_schema import BufferConfig, MachineConfig
from nce_sim.config.technology import LANE_SCHEMES, Technology, load_technology
from nce_sim.config.voltage import OperatingPoint, VoltageTable, list_voltages, load_voltage
from nce_sim.errors import InputError

NS_PER_US = 1000
ZERO_CELSIUS_K = 273.15


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

    def under(self, temperature_c: float | None, supply_v: float | None) -> "Machine":
        """Return the machine at another temperature, its unprotected domain at another supply.

        None leaves a figure as it is; so does the nominal voltage where the domain has no supply
        of its own. The clock stays.

        Raises InputError for a temperature or a supply that the machine's tables do not allow.
        """
        config, domain = self.config, self.config.unprotected
        if supply_v is not None and supply_v != self.supply_v("unprotected"):
            domain = domain.model_copy(update={"supply_v": float(supply_v)})
        temperature_k = config.temperature_k
        if temperature_c is not None:
            temperature_k = temperature_c + ZERO_CELSIUS_K
        config = config.model_copy(update={"unprotected": domain, "temperature_k": temperature_k})
        variant = self.model_copy(update={"config": config})
        for mistake in _out_of_range(variant):
            raise InputError(f"machine '{config.name}' under other conditions: {mistake}")
        return variant

    def with_scheme(self, array: str, scheme: ArrayScheme) -> "Machine":
        """Return the machine with the lanes of a domain's array protected by a scheme of your own.

        Raises InputError if it does not suit the machine, or has a bundled scheme's name.
        """
        if array not in self.config.arrays:
            raise InputError(f"unknown array '{array}': known are {', '.join(self.config.arrays)}")
        if self.config.fabric is not None:
            raise InputError(
                f"machine '{self.config.name}' has a fabric, whose columns fuse by tmr or "
                f"dmr_retry: take a machine with dedicated arrays for '{scheme.name}'"
            )
        content = self.config.model_dump()
        others = [each for each in content["schemes"] if each["name"] != scheme.name]
        if scheme != ARRAY_SCHEMES.get(scheme.name):
            content["schemes"] = [*others, scheme.model_dump()]
        content[array]["array"]["scheme"] = scheme.name
        try:
            config = MachineConfig.model_validate(content)
        except ValidationError as mistakes:
            found = "; ".join(mistake["msg"] for mistake in mistakes.errors())
            raise InputError(f"{scheme.name} for {array}: {found}") from mistakes
        return self.model_copy(update={"config": config})


def load_machine(name_or_path: str | Path, technology: str | None = None) -> Machine:
    """Load a bundled machine by name, or any machine by the path of its YAML file.

    `technology`, a bundled table's name or a path, takes the place of the file's own.

    Raises InputError for an unknown name, for a file that does not fit the schema, for a number
    format, a scheme, a memory or a cell type without figures, and for a clock or a supply that its
    tables do not allow.
    """
    path = machine_path(name_or_path)
    machine = with_tables(load_yaml(path, MachineConfig), path.parent, technology)
    for mistake in unfit(machine):
        raise InputError(f"{path}: {mistake}")
    return machine


def machine_path(name_or_path: str | Path) -> Path:
    """Return the file of a machine; InputError for a name that is neither bundled nor a path."""
    return named_file("machine", name_or_path, "hw_configs")


def with_tables(config: MachineConfig, folder: Path, technology: str | None = None) -> Machine:
    """Return a machine whose file lies in `folder` with its tables; `unfit` says if they fit.

    Raises InputError for tables that are unknown or not usable.
    """
    tables = bundled("hw_configs") / "technology"
    beside = folder if technology is None else Path()
    table = load_technology(technology or config.technology, tables, beside)
    voltage = None if config.voltage is None else load_voltage(config.voltage, folder)
    return Machine(config=config, technology=table, voltage=voltage)


def unfit(machine: Machine) -> Iterator[str]:
    """Say which figures the tables lack, and which clock or supply they do not allow."""
    return chain(_without_figures(machine), _out_of_range(machine))


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
    return names_in("hw_configs")

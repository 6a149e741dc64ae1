"""Everything that a machine does for energy: one action has one energy, with its formula."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial

from nce_sim.config.machine import Machine
from nce_sim.config.machine_schema import DomainConfig
from nce_sim.cost.activity import Activity, DomainActivity, Moved
from nce_sim.cost.area import (
    BOUNDS,
    CODEWORD_BITS,
    HALVES,
    Area,
    buffer_srams,
    codec_of,
    label_of,
    overhead_of,
    registers_of_mac,
    stored_bits,
)
from nce_sim.cost.supply import Supply, supply_of

LEAKAGE = "leakage"
LOGIC_LEAKS = "area x logic_leakage_mw_per_mm2"
PJ_PER_MW_US = 1e3
"""One milliwatt for one microsecond, in picojoules."""

PURPOSES = tuple(each.name for each in fields(Moved))
"""What moves on the bus, and from and to external memory."""

Count = Callable[[Activity], float]


@dataclass(frozen=True)
class Action:
    """Something that costs `energy_pj` each time; `count` takes its number from an activity.

    `formula` says how the energy comes from the `figures`, paths in the technology table. Actions
    per time have the unit "us": their energy is a power, and `is_leakage` tells whether it is lost
    in silicon that does nothing.
    """

    component: str
    domain: str | None
    name: str
    unit: str
    energy_pj: float
    formula: str
    figures: tuple[str, ...]
    count: Count
    is_leakage: bool = False

    @property
    def label(self) -> str:
        """The component with its domain, if it is not shared."""
        return label_of(self.component, self.domain)


def actions_of(machine: Machine, area: Area) -> tuple[Action, ...]:
    """Return all actions of a machine of that area."""
    found = []
    for name, domain in machine.config.domains.items():
        supply = supply_of(machine, name)
        for action in _domain_actions(machine, name, domain):
            found.append(_supplied(action, supply))
        if supply.is_lowered:
            found.append(_level_shifts(machine, name))
        found.extend(_domain_leakage(machine, area, name, domain, supply))
    found.extend(_shared_actions(machine, area))
    return tuple(found)


def spent_pj(actions: Iterable[Action], activity: Activity) -> float:
    """Return the energy of an activity in picojoules, without rounding."""
    return sum(action.count(activity) * action.energy_pj for action in actions)


def _supplied(action: Action, supply: Supply) -> Action:
    """Return the action at a domain's supply."""
    return replace(
        action,
        energy_pj=action.energy_pj * supply.dynamic,
        formula=action.formula + supply.dynamic_formula,
        figures=action.figures + supply.figures if supply.is_lowered else action.figures,
    )


def of_domain(domain: str, count: Callable[[DomainActivity], float]) -> Count:
    """Return the count of one domain's part of an activity."""
    return lambda activity: count(activity.domains[domain])


def _domain_actions(machine: Machine, name: str, domain: DomainConfig) -> Iterator[Action]:
    yield from _lane_actions(machine, name, domain)
    yield from _buffer_actions(machine, name, domain)
    path = "vector_element_pj"
    yield Action(
        "vector unit", name, "combine an element", "element",
        machine.technology.vector_element_pj.value, path, (path,),
        of_domain(name, lambda done: done.vector_elements),
    )  # fmt: skip


def _lane_actions(machine: Machine, name: str, domain: DomainConfig) -> Iterator[Action]:
    """Multiply-accumulates with their registers and what checks them, votes, and clipping."""
    technology, number_format = machine.technology, machine.config.number_format
    scheme = machine.config.scheme_of(name)
    share, path, checks = overhead_of(machine, scheme, "energy")
    checked, check = 1 + share, f" x (1 + {path})" if path else ""
    mac_path = f"mac.{number_format}.energy_pj"
    yield Action(
        "lanes", name, "multiply and accumulate", "MAC",
        technology.mac[number_format].energy_pj.value * checked, mac_path + check,
        (mac_path, *checks), of_domain(name, lambda done: done.lane_macs - done.retried_macs),
    )  # fmt: skip
    registers, path = registers_of_mac(number_format), "register_32bit_access_pj"
    access_pj = technology.register_32bit_access_pj.value
    yield Action(
        "lanes", name, "access registers", "32 bits", access_pj * checked, path + check,
        (path, *checks),
        of_domain(name, lambda done: (done.lane_macs - done.retried_macs) * registers),
    )  # fmt: skip
    if scheme.retries:
        step_pj = technology.mac[number_format].energy_pj.value + registers * access_pj
        yield Action(
            "lanes", name, "repeat after a mismatch", "MAC", step_pj * checked,
            f"({mac_path} + {registers:g} x {path}){check}", (mac_path, path, *checks),
            of_domain(name, lambda done: done.retried_macs),
        )  # fmt: skip
    if scheme.checksum_row:
        path = "adder_32bit_pj"
        yield Action(
            "lanes", name, "add for a checksum", "addition", technology.adder_32bit_pj.value, path,
            (path,), of_domain(name, lambda done: done.checksum_adds),
        )  # fmt: skip
    if scheme.votes:
        path = "voter_32bit_pj"
        yield Action(
            "lanes", name, "vote", "result", technology.voter_32bit_pj.value, path, (path,),
            of_domain(name, lambda done: done.votes),
        )  # fmt: skip
    if domain.array.clip:
        path = "comparator_pj"
        yield Action(
            "lanes", name, "compare with a bound", "comparison", technology.comparator_pj.value,
            path, (path,), of_domain(name, lambda done: BOUNDS * done.clips),
        )  # fmt: skip
    if domain.array.power_gating:
        path = "leakage.wake_pj"
        yield Action(
            "lanes", name, "wake a gated lane", "wake", technology.leakage.wake_pj.value, path,
            (path,), of_domain(name, lambda done: done.lane_wakes),
        )  # fmt: skip


def _read_bytes(done: DomainActivity, buffer: str) -> int:
    return {
        "input": done.input_read_bytes,
        "weight": done.weight_read_bytes,
        "output": done.output_bytes,
        "resident": done.resident_read_bytes,
    }[buffer]


def _written_bytes(done: DomainActivity, buffer: str) -> int:
    return {
        "input": done.input_written_bytes,
        "weight": done.weight_written_bytes,
        "output": done.output_bytes,
        "resident": done.resident_written_bytes,
    }[buffer]


def _buffer_actions(machine: Machine, name: str, domain: DomainConfig) -> Iterator[Action]:
    """Reads and writes of the local buffers, wider words and codecs included."""
    technology, buffers = machine.technology, domain.buffers
    word_bytes, bits = buffers.word_bits // 8, stored_bits(buffers)
    ways = (("read", _read_bytes), ("write", _written_bytes))
    figures = ("sram.energy_factor",)
    for buffer, sram in buffer_srams(buffers, technology).items():
        if sram.banks == 0:
            continue
        for way, moved in ways:
            energy_pj = sram.read_pj if way == "read" else sram.write_pj
            yield Action(
                "buffers", name, f"{way} {buffer} buffer", f"{buffers.word_bits}-bit word",
                energy_pj, f"{way}_pj, {bits} bits stored, by the fit of sram.rows", figures,
                _words(name, moved, (buffer,), word_bytes),
            )  # fmt: skip
    codec = codec_of(technology, buffers.scheme)
    if codec is None:
        return
    codings = (
        ("decode", codec.decode_pj, _read_bytes),
        ("encode", codec.encode_pj, _written_bytes),
    )
    for way, figure, moved in codings:
        path = f"{buffers.scheme}.{way}_pj"
        yield Action(
            "buffers", name, f"{way} {buffers.scheme}", "64-bit word", figure.value, path, (path,),
            _words(name, moved, tuple(HALVES), CODEWORD_BITS // 8),
        )  # fmt: skip


def _words(
    domain: str, moved: Callable[[DomainActivity, str], int], buffers: tuple[str, ...],
    word_bytes: int,
) -> Count:  # fmt: skip
    """Return the count of the words that `moved` tells of some buffers."""
    return of_domain(
        domain, lambda done: sum(moved(done, buffer) for buffer in buffers) / word_bytes
    )


def _level_shifts(machine: Machine, name: str) -> Action:
    """Data that enters or leaves a domain with a supply of its own."""
    path = "level_shifter_pj_per_byte"
    return Action(
        "buffers", name, "shift to another supply", "byte",
        machine.technology.level_shifter_pj_per_byte.value, path, (path,),
        of_domain(name, lambda done: done.exchanged_bytes),
    )  # fmt: skip


def _domain_leakage(
    machine: Machine, area: Area, name: str, domain: DomainConfig, supply: Supply
) -> Iterator[Action]:
    """Leakage of the logic by its area, of the buffers by their cells, over time."""
    technology, clock_mhz = machine.technology, machine.config.clock_mhz
    logic_mw = technology.logic_leakage_mw_per_mm2.value * supply.leakage
    logic = ("logic_leakage_mw_per_mm2", "wiring_factor", *supply.figures)
    leaks = partial(_leak, clock_mhz, supply, name)
    by_component = area.by_component_mm2
    formula = LOGIC_LEAKS
    lanes_mw = by_component[f"{name} lanes"] * logic_mw
    if domain.array.power_gating:
        yield from _gated_leakage(machine, name, domain, lanes_mw, formula, supply, logic)
    else:
        yield leaks("lanes", "leak", lanes_mw, formula, logic)
    vector_mw = by_component[f"{name} vector unit"] * logic_mw
    yield leaks("vector unit", "leak", vector_mw, formula, logic)
    cell_type = domain.buffers.cell_type
    srams = buffer_srams(domain.buffers, technology)
    cells_mw = sum(HALVES[buffer] * sram.leakage_mw for buffer, sram in srams.items())
    figures = ("sram.leakage_factor", *supply.figures)
    words = "leakage_mw by the fit of sram.rows"
    if cell_type is not None:
        figures = (f"sram.leakage_by_cell_type.{cell_type}", *figures)
        words += f" x sram.leakage_by_cell_type.{cell_type}"
    yield leaks("buffers", "leak", cells_mw * supply.leakage, words, figures)
    codecs_mw = _codec_area_mm2(area, name) * logic_mw
    if codecs_mw:
        yield leaks("buffers", "leak in codecs", codecs_mw, formula, logic)


def _leak(
    clock_mhz: float, supply: Supply, domain: str | None, component: str, what: str, mw: float,
    formula: str, figures: tuple[str, ...],
) -> Action:  # fmt: skip
    """Return what a component leaks all the time; `mw` includes the supply's factor."""
    return Action(
        component, domain, what, "us", mw * PJ_PER_MW_US, formula + supply.leakage_formula,
        figures, lambda activity: activity.latency_cycles / clock_mhz, is_leakage=True,
    )  # fmt: skip


def _codec_area_mm2(area: Area, domain: str) -> float:
    return sum(
        area.of(part) for part in area.parts if part.domain == domain and part.name == "codecs"
    )


def _gated_leakage(
    machine: Machine, name: str, domain: DomainConfig, lanes_mw: float, formula: str,
    supply: Supply, figures: tuple[str, ...],
) -> Iterator[Action]:  # fmt: skip
    """Leakage of lanes that are cut off while they have no neuron."""
    lanes, clock_mhz = domain.array.lanes, machine.config.clock_mhz
    gated_share = machine.technology.leakage.gated_share.value
    lane_pj = lanes_mw / lanes * PJ_PER_MW_US

    def powered_us(activity: Activity) -> float:
        return activity.domains[name].busy_lane_cycles / clock_mhz

    def gated_us(activity: Activity) -> float:
        return activity.latency_cycles / clock_mhz * lanes - powered_us(activity)

    one = f"{formula} / lanes{supply.leakage_formula}"
    yield Action(
        "lanes", name, "leak in powered lanes", "lane-us", lane_pj, one, figures, powered_us,
        is_leakage=True,
    )  # fmt: skip
    path = "leakage.gated_share"
    yield Action(
        "lanes", name, "leak in gated lanes", "lane-us", lane_pj * gated_share,
        f"{path} x {one}", (path, *figures), gated_us, is_leakage=True,
    )  # fmt: skip


def _shared_actions(machine: Machine, area: Area) -> Iterator[Action]:
    """Bus, external memory and controller."""
    technology, config = machine.technology, machine.config
    length_mm, path = config.bus.length_factor * area.side_mm, "bus_pj_per_byte_mm"
    for purpose in PURPOSES:
        yield Action(
            "bus", None, f"move {_in_words(purpose)}", "byte",
            length_mm * technology.bus_pj_per_byte_mm.value,
            f"{path} x {length_mm:.4g} mm ({config.bus.length_factor:g} x sqrt(area))", (path,),
            _moved("bus", purpose),
        )  # fmt: skip
    yield from _memory_actions(machine)
    for name, unit, path, count in (
        ("issue a tile", "tile", "controller_tile_pj", lambda activity: activity.tiles),
        ("run", "cycle", "controller_cycle_pj", lambda activity: activity.latency_cycles),
    ):
        energy_pj = getattr(technology, path).value
        yield Action("controller", None, name, unit, energy_pj, path, (path,), count)
    if config.fabric is not None:
        yield Action(
            "controller", None, "fuse anew", "switch", config.fabric.switch_pj,
            "fabric.switch_pj of the machine", (), lambda activity: activity.switches,
        )  # fmt: skip
    supply = supply_of(machine, None)
    logic_mw = technology.logic_leakage_mw_per_mm2.value * supply.leakage
    logic = ("logic_leakage_mw_per_mm2", "wiring_factor", *supply.figures)
    for component in ("controller", "memory codec"):
        if component in area.by_component_mm2:
            leaking_mw = area.by_component_mm2[component] * logic_mw
            yield _leak(
                config.clock_mhz, supply, None, component, "leak", leaking_mw, LOGIC_LEAKS, logic
            )


def _in_words(purpose: str) -> str:
    return f"the {purpose.replace('_', ' ')}" if purpose == "protection_map" else purpose


def _moved(where: str, purpose: str) -> Count:
    """Return the count of the bytes that moved on the bus or from and to the memory."""
    return lambda activity: getattr(getattr(activity, where), purpose)


def _memory_actions(machine: Machine) -> Iterator[Action]:
    config, kind = machine.config, machine.config.memory.kind
    figures, memory = machine.technology.memories[kind], "external memory"
    path = f"memories.{kind}.energy_pj_per_byte"
    for purpose in PURPOSES:
        yield Action(
            memory, None, f"move {_in_words(purpose)}", "byte", figures.energy_pj_per_byte.value,
            path, (path,), _moved("memory", purpose),
        )  # fmt: skip
    path = f"memories.{kind}.background_mw"
    yield Action(
        memory, None, "stand by and refresh", "us", figures.background_mw.value * PJ_PER_MW_US,
        path, (path,), lambda activity: activity.latency_cycles / config.clock_mhz,
    )  # fmt: skip
    scheme = config.memory.protected_scheme
    codec = codec_of(machine.technology, scheme)
    if codec is None:
        return
    for way, figure, count in (
        ("decode", codec.decode_pj, lambda activity: activity.memory_words_read),
        ("encode", codec.encode_pj, lambda activity: activity.memory_words_written),
    ):
        path = f"{scheme}.{way}_pj"
        yield Action(
            memory, None, f"{way} {scheme}", "64-bit word", figure.value, path, (path,), count
        )  # fmt: skip

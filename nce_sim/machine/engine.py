"""The whole engine: the one place that knows every part and wires them."""

from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, Protocol

import simpy

from nce_sim.config.machine import Machine
from nce_sim.cost.activity import Activity
from nce_sim.cost.area import Area, area
from nce_sim.cost.energy import Energy, energy
from nce_sim.machine.activity import count_activity
from nce_sim.machine.array import DomainEngine, Paths, array_name
from nce_sim.machine.channel import Channel, Traffic
from nce_sim.machine.controller import Controller
from nce_sim.machine.lookup import Schedule
from nce_sim.machine.memory import ExternalMemory
from nce_sim.machine.probe import BARRIER, CAUSES, COMPUTE, Span, Timeline
from nce_sim.resilience.split import Split
from nce_sim.schedule.domains import DOMAINS, PROTECTED
from nce_sim.schedule.program import Program, build_program
from nce_sim.workload.layer import Layer

CONTROLLER_PORT = "controller"


class Network(Protocol):
    """What the machine needs to know of a network: its layers in order."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Layers in topological order."""


@dataclass(frozen=True)
class Run:
    """One simulated inference on one machine with one split.

    `bus` and `local_ports` hold what each channel moved; `schedule` answers which lane computes
    which neuron when.
    """

    machine: Machine
    program: Program
    latency_cycles: int
    timeline: tuple[Span, ...]
    counts: Activity
    energy: Energy
    area: Area
    bus: Traffic
    local_ports: Mapping[str, Traffic]
    schedule: Schedule

    @property
    def latency_us(self) -> float:
        """Latency of one inference in microseconds."""
        return self.latency_cycles / self.machine.config.clock_mhz

    @cached_property
    def compute_cycles_by_layer(self) -> dict[str, dict[str, int]]:
        """Cycles in which each domain's array computed, by layer."""
        found = {
            work.layer.name: dict.fromkeys(DOMAINS, 0)
            for work in self.program.layers
            if work.on_array
        }
        for span in self.timeline:
            domain = span.domain_of_array
            if span.what == COMPUTE and domain is not None:
                found[span.layer][domain] += span.cycles
        return found

    @cached_property
    def cycles_by_cause(self) -> dict[str, dict[str, int]]:
        """For each domain, what its array did in every cycle; the causes sum to the latency."""
        found = {domain: dict.fromkeys(CAUSES, 0) for domain in DOMAINS}
        for span in self.timeline:
            domain = span.domain_of_array
            if domain is not None:
                found[domain][span.what] += span.cycles
        return found

    @property
    def mac_share_unprotected(self) -> float:
        """Share of the multiply-accumulates that ran on PEs."""
        done = {name: domain.useful_macs for name, domain in self.counts.domains.items()}
        return 1 - done[PROTECTED] / sum(done.values())

    def utilisation(self, domain: str) -> float:
        """Share of a domain's lane-cycles that did useful multiply-accumulates."""
        config = self.machine.config.domains[domain].array
        offered = config.lanes * config.macs_per_cycle * self.latency_cycles
        return self.counts.domains[domain].useful_macs / offered

    def summary(self) -> dict[str, Any]:
        """Return the run as plain data that JSON can hold, units in the names."""
        return {
            "machine": self.machine.config.name,
            "ppe_ratio": self.machine.config.ppe_ratio,
            "unprotected_mac_share": self.mac_share_unprotected,
            "latency_cycles": self.latency_cycles,
            "latency_us": self.latency_us,
            "energy_pj": dict(self.energy.by_component_pj),
            "energy_total_pj": self.energy.total_pj,
            "energy_range_pj": [self.energy.low_pj, self.energy.high_pj],
            "area_mm2": dict(self.area.by_component_mm2),
            "area_total_mm2": self.area.total_mm2,
            "area_range_mm2": [self.area.low_mm2, self.area.high_mm2],
            "cycles_by_cause": self.cycles_by_cause,
            "compute_cycles_by_layer": self.compute_cycles_by_layer,
            "bus_busy_cycles": self.bus.busy_cycles,
            "bytes_by_purpose": dict(sorted(self.bus.bytes_by_purpose.items())),
            "counts": asdict(self.counts),
        }

    def __str__(self) -> str:
        return (
            f"{self.machine.config.name}: {self.latency_cycles:,} cycles "
            f"({self.latency_us:,.1f} us), {self.energy.total_pj / 1e6:,.1f} uJ, "
            f"{self.area.total_mm2:.2f} mm2; "
            f"{self.mac_share_unprotected:.1%} of the MACs on PEs"
        )


def simulate(network: Network, machine: Machine, split: Split) -> Run:
    """Simulate one inference of `network` on `machine`, its neurons divided by `split`.

    Raises InputError if the split is another network's or a layer does not fit the machine.
    """
    program = build_program(network.layers, machine.config, split.unprotected)
    engine = Engine(program)
    latency_cycles = engine.run()
    counts = count_activity(program, engine.bus.traffic, latency_cycles)
    machine_area = area(machine)
    return Run(
        machine=machine,
        program=program,
        latency_cycles=latency_cycles,
        timeline=tuple(engine.timeline.spans),
        counts=counts,
        energy=energy(machine, counts, machine_area),
        area=machine_area,
        bus=engine.bus.traffic,
        local_ports={domain: port.traffic for domain, port in engine.local_ports.items()},
        schedule=Schedule(program, engine.timeline),
    )


class Engine:
    """The parts of the machine, wired for one program."""

    def __init__(self, program: Program) -> None:
        config = program.machine
        self.program = program
        self.env = simpy.Environment()
        self.timeline = Timeline()
        self.memory = ExternalMemory(config.memory)
        ports = tuple(f"{domain} {way}" for domain in DOMAINS for way in ("load", "store"))
        self.bus = Channel(
            self.env, "bus", Fraction(str(config.bus.bytes_per_cycle)), config.bus.quantum_bytes,
            (*ports, CONTROLLER_PORT),
        )  # fmt: skip
        self.local_ports = {
            domain: Channel(
                self.env,
                f"{domain} local port",
                Fraction(str(config.domains[domain].buffers.port_bytes_per_cycle)),
                config.bus.quantum_bytes,
                (f"{domain} load", f"{domain} store"),
            )
            for domain in DOMAINS
        }
        self.controller = Controller(self.env, config.controller)
        self.domains = {
            domain: DomainEngine(
                domain,
                Paths(
                    self.env, self.bus, self.memory, self.local_ports[domain], self.controller,
                    self.timeline,
                ),
            )
            for domain in DOMAINS
        }  # fmt: skip

    def run(self) -> int:
        """Run the program once and return its latency in cycles."""
        finished = self.env.process(self._walk())
        self.env.run(until=finished)
        return int(self.env.now)

    def _walk(self) -> Generator[simpy.Event, None, None]:
        """Walk through the layers; each layer's protection map is fetched during the one before."""
        layers = self.program.layers
        map_ready = self._fetch_map(0)
        for number, work in enumerate(layers):
            start = int(self.env.now)
            if map_ready is not None:
                yield map_ready
            map_ready = self._fetch_map(number + 1)
            at_work = int(self.env.now)
            yield self.env.all_of([self.domains[domain].run_layer(work) for domain in DOMAINS])
            yield from self.controller.close_layer()
            for domain in DOMAINS:
                self._close_timeline(domain, work.layer.name, start, at_work)

    def _fetch_map(self, number: int) -> simpy.Event | None:
        """Request the protection map of a layer from the protected region."""
        if number >= len(self.program.layers) or not self.program.layers[number].map_bytes:
            return None
        size = self.memory.moved_bytes(PROTECTED, self.program.layers[number].map_bytes)
        return self.bus.request(
            CONTROLLER_PORT, "protection map", size, self.memory.bytes_per_cycle
        )

    def _close_timeline(self, domain: str, layer: str, start: int, at_work: int) -> None:
        """Attribute the cycles before and after an array's own work on a layer to the barrier."""
        resource = array_name(domain)
        ends = [
            span.end_cycle
            for span in self.timeline.spans
            if span.resource == resource and span.layer == layer
        ]
        self.timeline.add(resource, BARRIER, layer, -1, start, at_work)
        now = int(self.env.now)
        self.timeline.add(resource, BARRIER, layer, -1, max(ends, default=at_work), now)

"""The whole engine: the one place that knows every part and wires them."""

import gc
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from math import isfinite
from typing import Any, Protocol

import simpy

from nce_sim.config.machine import Machine
from nce_sim.config.machine_schema import exact
from nce_sim.cost.actions import PJ_PER_MW_US
from nce_sim.cost.activity import Activity, total
from nce_sim.cost.area import Area, area
from nce_sim.cost.energy import Energy, energy
from nce_sim.errors import InputError
from nce_sim.machine.activity import count_activity, unprotected_share
from nce_sim.machine.array import DomainEngine, Paths, array_name
from nce_sim.machine.causes import split_compute
from nce_sim.machine.channel import Channel, Traffic
from nce_sim.machine.controller import Controller
from nce_sim.machine.lookup import Schedule
from nce_sim.machine.memory import Transport
from nce_sim.machine.probe import (
    BARRIER,
    CAUSES,
    COMPUTE,
    STORE,
    SWITCH,
    VECTOR,
    Span,
    Timeline,
)  # fmt: skip
from nce_sim.resilience.split import Split
from nce_sim.schedule.domains import DOMAINS, PROTECTED
from nce_sim.schedule.layout import Region
from nce_sim.schedule.program import LayerWork, Program, build_program
from nce_sim.schedule.retry import with_mismatches
from nce_sim.schedule.reuse import program_for
from nce_sim.workload.layer import Layer

CONTROLLER_PORT = "controller"
BUS = "bus"
MAP_PURPOSE = "protection map"


class Network(Protocol):
    """What the machine needs to know of a network: its layers in order."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Layers in topological order."""


@dataclass(frozen=True)
class Run:
    """One simulated inference, or batch of them, on one machine with one split.

    `bus` and `local_ports` hold what each channel moved; `schedule` answers which lane computes
    which neuron when.
    """

    machine: Machine
    program: Program
    latency_cycles: int
    timeline: tuple[Span, ...]
    activity_by_layer: Mapping[str, Activity]
    bus: Traffic
    local_ports: Mapping[str, Traffic]
    schedule: Schedule

    @cached_property
    def counts(self) -> Activity:
        """Counts of the whole run."""
        return total(self.activity_by_layer.values())

    @cached_property
    def area(self) -> Area:
        """Area of the machine."""
        return area(self.machine)

    @cached_property
    def energy(self) -> Energy:
        """Energy of the batch."""
        return energy(self.machine, self.activity_by_layer, self.area)

    @property
    def latency_us(self) -> float:
        """Latency of the batch in microseconds."""
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
    def cycles_by_layer_and_cause(self) -> dict[str, dict[str, dict[str, int]]]:
        """What each array did while a layer ran; an array's causes of all layers are its run."""
        found = {
            work.layer.name: {domain: dict.fromkeys(CAUSES, 0) for domain in DOMAINS}
            for work in self.program.layers
        }
        for span in self.timeline:
            domain = span.domain_of_array
            if domain is not None:
                found[span.layer][domain][span.what] += span.cycles
        for work in self.program.layers:
            alone = replace(self.program, layers=(work,))
            for domain, causes in found[work.layer.name].items():
                causes.update(split_compute(alone, domain, causes[COMPUTE]))
        return found

    @cached_property
    def cycles_by_cause(self) -> dict[str, dict[str, int]]:
        """What each array did with its cycles; the causes of an array sum to the latency."""
        layers = self.cycles_by_layer_and_cause.values()
        return {
            domain: {cause: sum(layer[domain][cause] for layer in layers) for cause in CAUSES}
            for domain in DOMAINS
        }

    @cached_property
    def layer_intervals(self) -> dict[str, tuple[int, int]]:
        """First cycle of each layer and the first one after it; a layer follows on another."""
        return layer_intervals(self.program, self.timeline)

    @cached_property
    def useful_macs_by_layer(self) -> dict[str, dict[str, int]]:
        """Multiply-accumulates of the network that each array did, by layer with neurons."""
        return {
            work.layer.name: {
                array: self.program.batch * work.layer.reduction_length
                * sum(share.elements for share in work.on(array))
                for array in DOMAINS
            }
            for work in self.program.layers
            if work.on_array
        }  # fmt: skip

    @property
    def mac_share_unprotected(self) -> float:
        """Share of the multiply-accumulates that ran on PEs."""
        return unprotected_share(self.counts)

    @property
    def images_per_second(self) -> float:
        """Steady-state throughput: a batch begins when the one before has ended."""
        return self.program.batch * self.machine.config.clock_mhz * 1e6 / self.latency_cycles

    @property
    def energy_per_image_pj(self) -> float:
        """Energy of one image of the batch in picojoules."""
        return self.energy.total_pj / self.program.batch

    @property
    def power_mw(self) -> float:
        """Mean power while the batch runs, external memory included."""
        return self.energy.total_pj / self.latency_us / PJ_PER_MW_US

    @property
    def chip_power_mw(self) -> float:
        """Mean power while the batch runs, without the external memory."""
        return self.energy.chip_pj / self.latency_us / PJ_PER_MW_US

    @property
    def energy_delay_pj_us(self) -> float:
        """Energy of an image times the latency of the batch."""
        return self.energy_per_image_pj * self.latency_us

    @property
    def tops(self) -> float:
        """Useful operations in 1e12 a second: a multiply-accumulate is two."""
        macs = sum(done.useful_macs for done in self.counts.domains.values())
        return 2 * macs / self.latency_us / 1e6

    @property
    def tops_per_watt(self) -> float:
        """Useful operations in 1e12 a second for each watt, external memory included."""
        return self.tops / (self.power_mw / 1e3)

    def utilisation(self, domain: str) -> float:
        """Share of a domain's lane-cycles that did useful multiply-accumulates.

        Of a fabric, the lanes of each layer are those that are fused in it.
        """
        offered = 0
        for work in self.program.layers:
            (start, end), array = self.layer_intervals[work.layer.name], work.arrays[domain]
            offered += array.lanes * array.macs_per_cycle * (end - start)
        return self.counts.domains[domain].useful_macs / offered

    def summary(self) -> dict[str, Any]:
        """Return the run as plain data that JSON can hold, units in the names."""
        return {
            "machine": self.machine.config.name,
            "ppe_ratio": self.machine.config.ppe_ratio,
            "unprotected_mac_share": self.mac_share_unprotected,
            "latency_cycles": self.latency_cycles,
            "latency_us": self.latency_us,
            "images": self.program.batch,
            "images_per_second": self.images_per_second,
            "energy_pj": dict(self.energy.by_component_pj),
            "energy_total_pj": self.energy.total_pj,
            "energy_range_pj": [self.energy.low_pj, self.energy.high_pj],
            "energy_per_image_pj": self.energy_per_image_pj,
            "energy_by_layer_pj": dict(self.energy.by_layer_pj),
            "energy_by_domain_pj": dict(self.energy.by_domain_pj),
            "power_mw": self.power_mw,
            "chip_power_mw": self.chip_power_mw,
            "energy_delay_pj_us": self.energy_delay_pj_us,
            "tops": self.tops,
            "tops_per_watt": self.tops_per_watt,
            "area_mm2": dict(self.area.by_component_mm2),
            "area_total_mm2": self.area.total_mm2,
            "area_range_mm2": [self.area.low_mm2, self.area.high_mm2],
            "utilisation": {domain: self.utilisation(domain) for domain in DOMAINS},
            "cycles_by_cause": self.cycles_by_cause,
            "cycles_by_layer_and_cause": self.cycles_by_layer_and_cause,
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


def simulate(
    network: Network,
    machine: Machine,
    split: Split,
    *,
    batch: int = 1,
    mismatch_rate: float = 0.0,
    seed: int = 0,
    like: Run | None = None,
) -> Run:
    """Simulate `network` on `machine`, its neurons divided by `split`, for a batch of images.

    `mismatch_rate` is how often, per lane and cycle, the copies of a scheme with retries differ;
    which waves run again is drawn from `seed` before the run. `like` is another run, whose schedule
    serves again where split, batch and all that it depends on are the same: machines that differ in
    rates, latencies, voltage or technology only. The result is the same with it and without.

    Raises InputError if the split is another network's, a layer does not fit the machine, the batch
    is empty or the rate is not a number from 0 to 1.
    """
    if not isfinite(mismatch_rate) or not 0 <= mismatch_rate <= 1:
        raise InputError(f"mismatch_rate is a rate from 0 to 1, not {mismatch_rate}")
    map_bits = {name: split.map_bits(name) for name in split.unprotected}
    with without_garbage_collection():
        program = None
        if like is not None:
            program = program_for(
                machine.config, like.program, network.layers, split.unprotected, map_bits, batch
            )
        if program is None:
            program = build_program(
                network.layers, machine.config, split.unprotected, map_bits, batch
            )
        program = with_mismatches(program, mismatch_rate, seed)
    return run_program(machine, program)


def run_program(machine: Machine, program: Program) -> Run:
    """Simulate a program on the machine that it was made for."""
    with without_garbage_collection():
        engine = Engine(program)
        latency_cycles = engine.run()
        activity = count_activity(program, layer_intervals(program, engine.timeline.spans))
    return Run(
        machine=machine,
        program=program,
        latency_cycles=latency_cycles,
        timeline=tuple(engine.timeline.spans),
        activity_by_layer=activity,
        bus=engine.bus.traffic,
        local_ports={domain: port.traffic for domain, port in engine.local_ports.items()},
        schedule=Schedule(program, engine.timeline),
    )


def layer_intervals(program: Program, spans: Iterable[Span]) -> dict[str, tuple[int, int]]:
    """Return the first cycle of each layer and the first one after it.

    Every cycle of an array belongs to a layer, and a layer follows on another.
    """
    cycles = dict.fromkeys((work.layer.name for work in program.layers), 0)
    array = array_name(PROTECTED)
    for span in spans:
        if span.resource == array:
            cycles[span.layer] += span.cycles
    found, start = {}, 0
    for name, length in cycles.items():
        found[name] = start, start + length
        start += length
    return found


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Put the search for cyclic garbage off: a run makes many small objects, and no cycles."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class Engine:
    """The parts of the machine, wired for one program."""

    def __init__(self, program: Program) -> None:
        config = program.machine
        self.program = program
        self.env = simpy.Environment()
        self.timeline = Timeline()
        self.transport = Transport(config)
        ports = tuple(f"{domain} {way}" for domain in DOMAINS for way in ("load", "store"))
        quantum = config.bus.quantum_bytes
        self.bus = self._channel(
            BUS, (*ports, CONTROLLER_PORT), quantum, config.bus.bytes_per_cycle,
            config.bus.arbitration == "priority",
        )  # fmt: skip
        self.local_ports = {
            domain: self._channel(
                f"{domain} local port", (f"{domain} load", f"{domain} store"), quantum,
                config.domains[domain].buffers.port_bytes_per_cycle,
            )
            for domain in DOMAINS
        }  # fmt: skip
        self.controller = Controller(self.env, config.controller)
        self.domains = {
            domain: DomainEngine(
                domain,
                Paths(
                    self.env, self.bus, self.transport, self.local_ports[domain],
                    self.controller, self.timeline,
                ),
            )
            for domain in DOMAINS
        }  # fmt: skip

    def _channel(
        self, name: str, ports: tuple[str, ...], quantum_bytes: int, bytes_per_cycle: float,
        priority: bool = False,
    ) -> Channel:  # fmt: skip
        """Wire a channel whose busy times are recorded."""
        spans = self.timeline.spans

        def watch(served: tuple[int, ...], start: int, end: int) -> None:
            spans.append(Span(name, in_words(served), "", -1, start, end))

        @cache
        def in_words(served: tuple[int, ...]) -> str:
            return " + ".join(ports[place] for place in served)

        quantum_cycles = max(1, quantum_bytes // exact(bytes_per_cycle))
        return Channel(self.env, ports, quantum_cycles, priority, watch)

    def run(self) -> int:
        """Run the program once and return its latency in cycles."""
        finished = self.env.process(self._walk())
        self.env.run(until=finished)
        return int(self.env.now)

    def _walk(self) -> Generator[simpy.Event, None, None]:
        """Walk through the layers; each layer's protection map is fetched during the one before."""
        layers = self.program.layers
        map_ready = self.env.process(self._fetch_map(0))
        for number, work in enumerate(layers):
            start = int(self.env.now)
            yield map_ready
            map_ready = self.env.process(self._fetch_map(number + 1))
            self._attribute(work, BARRIER, start)
            if work.switches:
                yield self._switch(work)
            running = [self.domains[domain].run_layer(work) for domain in DOMAINS]
            began = int(self.env.now)
            yield self.env.all_of(running)
            self._close(work, began)
            start = int(self.env.now)
            yield self.controller.close_layer()
            self._attribute(work, BARRIER, start)

    def _switch(self, work: LayerWork) -> simpy.Event:
        """Fuse the columns anew: both arrays wait."""
        assert self.program.machine.fabric is not None
        cycles = self.program.machine.fabric.switch_cycles
        for domain in DOMAINS:
            now = int(self.env.now)
            self.timeline.add(array_name(domain), SWITCH, work.layer.name, -1, now, now + cycles)
        return self.env.timeout(cycles)

    def _fetch_map(self, number: int) -> Generator[simpy.Event, None, None]:
        """Fetch the protection map of a layer from the protected region."""
        if number >= len(self.program.layers) or not self.program.layers[number].map_bytes:
            return
        region = Region.of(self.program.machine)[PROTECTED]
        fetched = region.segment(self.program.layers[number].map_bytes)
        way = self.transport.map_fetch(fetched.moved_bytes)
        self.bus.traffic.add(MAP_PURPOSE, fetched.moved_bytes)
        yield self.env.timeout(way.latency_cycles)
        yield self.bus.request(CONTROLLER_PORT, way.bus_cycles)

    def _close(self, work: LayerWork, began: int) -> None:
        """Attribute an array's cycles after its own work on a layer.

        It waits for its last store, then for the other domain; or all the time for vector units.
        """
        now = int(self.env.now)
        for domain in DOMAINS:
            resource, layer = array_name(domain), work.layer.name
            if not work.on_array:
                self.timeline.add(resource, VECTOR, layer, -1, began, now)
                continue
            engine = self.domains[domain]
            computed, stored = engine.computed_until, engine.stored_until
            self.timeline.add(resource, STORE, layer, -1, computed, stored)
            self.timeline.add(resource, BARRIER, layer, -1, stored, now)

    def _attribute(self, work: LayerWork, cause: str, start: int) -> None:
        for domain in DOMAINS:
            self.timeline.add(
                array_name(domain), cause, work.layer.name, -1, start, int(self.env.now)
            )

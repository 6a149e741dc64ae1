"""The machine stepped cycle by cycle: what each process does in every single cycle.

A process is a generator that yields what it waits for, as a condition. In each cycle all processes
whose condition holds are resumed until none gets any further; then each shared path chooses whom it
serves, and the cycle passes.
"""

from collections import Counter
from fractions import Fraction
from math import ceil, floor

from reference.maps import DOMAINS, PROTECTED

KINDS = {"weights": "weights", "inputs": "maps", "crossings": "maps", "outputs": "writes"}
"""Which share of the memory's peak a stream sustains."""


def exact(number):
    """Return a number as it is written in decimal."""
    return Fraction(str(number))


class SharedPath:
    """Serves one port a cycle; a port keeps its turn for a quantum of cycles at most."""

    def __init__(self, ports, quantum, by_priority=False):
        self.ports, self.quantum, self.by_priority = ports, quantum, by_priority
        self.left = dict.fromkeys(ports, 0)
        self.asked_first, self.granted, self.holder = 0, 0, None
        self.served = []

    def ask(self, port, cycles):
        assert self.left[port] == 0
        self.left[port] = cycles

    def is_done(self, port):
        return self.left[port] == 0

    @property
    def busy_cycles(self):
        return len([port for port in self.served if port is not None])

    def pass_cycle(self):
        """Choose a port if the last grant has passed, and serve it for a cycle."""
        if self.granted == 0:
            self._grant()
        self.served.append(self.holder if self.granted else None)
        if self.granted:
            self.granted -= 1
            self.left[self.holder] -= 1

    def _grant(self):
        first = 0 if self.by_priority else self.asked_first
        for port in (*self.ports[first:], *self.ports[:first]):
            if self.left[port]:
                self.holder, self.granted = port, min(self.quantum, self.left[port])
                self.asked_first = (self.ports.index(port) + 1) % len(self.ports)
                return


class Halves:
    """The two halves of a double buffer."""

    def __init__(self):
        self.free = 2

    def take_if_free(self):
        if self.free == 0:
            return False
        self.free -= 1
        return True

    def give_back(self):
        self.free += 1
        assert self.free <= 2


class Ways:
    """How many cycles streams take."""

    def __init__(self, machine):
        self.machine, memory = machine, machine.memory
        self.width = exact(machine.bus.bytes_per_cycle)
        awake = 1 - Fraction(memory.refresh_cycles, memory.refresh_interval_cycles)
        peak = exact(memory.bytes_per_cycle) * awake
        self.external = {
            what: min(self.width, peak * exact(getattr(memory.efficiency, kind)))
            for what, kind in KINDS.items()
        }
        if memory.latency_cycles:
            under_way = Fraction(
                memory.outstanding_requests * memory.burst_bytes, memory.latency_cycles
            )
            self.external = {what: min(rate, under_way) for what, rate in self.external.items()}

    def port_rate(self, domain):
        return exact(self.machine.domains[domain].buffers.port_bytes_per_cycle)

    def latency(self, holder, external):
        """Return the cycles from a request to its first data."""
        if not external:
            return self.machine.domains[holder].buffers.codec_cycles
        memory = self.machine.memory
        return memory.latency_cycles + (memory.codec_cycles if holder == PROTECTED else 0)

    def cycles(self, array, streams):
        """Return the cycles of the bus and of the array's local port."""
        bus = local = Fraction(0)
        for stream in streams:
            if stream.external:
                bus += stream.moved_bytes / self.external[stream.what]
            elif stream.holder != array:
                bus += stream.moved_bytes / min(self.width, self.port_rate(stream.holder))
            else:
                local += stream.moved_bytes / self.port_rate(array)
        return ceil(bus), ceil(local)

    def quantum(self, rate):
        return max(1, floor(self.machine.bus.quantum_bytes / exact(rate)))


class Array:
    """One domain: its buffers, its port, and what its array does now."""

    def __init__(self, ways, domain):
        self.domain = domain
        self.weights, self.inputs, self.outputs = Halves(), Halves(), Halves()
        rate = ways.machine.domains[domain].buffers.port_bytes_per_cycle
        self.load_port, self.store_port = f"{domain} load", f"{domain} store"
        self.port = SharedPath((self.load_port, self.store_port), ways.quantum(rate))
        self.doing, self.spent = None, Counter()


class Process:
    """A generator and the condition that it waits for."""

    def __init__(self, name, steps):
        self.name, self.steps = name, steps
        self.awaits = lambda: True

    def resume(self):
        """Let it go on to where it waits next; tell whether there is such a place."""
        self.awaits = next(self.steps, None)
        return self.awaits is not None


class Clock:
    """Runs recounted layers; `spans` tells when each tile loads, computes and stores."""

    def __init__(self, recount):
        self.works, self.machine, self.memory = recount.works, recount.machine, recount.memory
        self.ways = Ways(self.machine)
        bus = self.machine.bus
        self.arrays = {domain: Array(self.ways, domain) for domain in DOMAINS}
        ports = [port for a in self.arrays.values() for port in (a.load_port, a.store_port)]
        self.bus = SharedPath(
            (*ports, "controller"), self.ways.quantum(bus.bytes_per_cycle),
            bus.arbitration == "priority",
        )  # fmt: skip
        self.now, self.spans = 0, {}
        self.processes, self.ended = [], set()

    def run(self):
        """Return the latency in cycles."""
        self._start(("all layers",), self._walk())
        while True:
            self._settle()
            if ("all layers",) in self.ended:
                assert not self.processes
                return self.now
            for array in self.arrays.values():
                array.spent[array.doing] += 1
                array.port.pass_cycle()
            self.bus.pass_cycle()
            self.now += 1

    def _settle(self):
        """Resume processes until none gets any further in this cycle."""
        moved = True
        while moved:
            moved = False
            for process in list(self.processes):
                while process.awaits():
                    moved = True
                    if not process.resume():
                        self.processes.remove(process)
                        self.ended.add(process.name)
                        break

    def _start(self, name, steps):
        self.processes.append(Process(name, steps))

    def _has_ended(self, *name):
        return lambda: name in self.ended

    def _after(self, cycles):
        end = self.now + cycles
        return lambda: self.now >= end

    def _both_do(self, doing):
        for array in self.arrays.values():
            array.doing = doing

    def _walk(self):
        self._start(("map", 0), self._fetch_map(0))
        for number, work in enumerate(self.works):
            self._both_do("wait at barrier")
            yield self._has_ended("map", number)
            self._start(("map", number + 1), self._fetch_map(number + 1))
            if work.switches:
                self._both_do("fuse columns")
                yield self._after(self.machine.fabric.switch_cycles)
            self._both_do("wait for vector unit")
            started = []
            for array in self.arrays.values():
                for process in (self._load, self._compute, self._store):
                    started.append((process.__name__, number, array.domain))
                    self._start(started[-1], process(number, work, array))
            for name in started:
                yield self._has_ended(*name)
            self._both_do("wait at barrier")
            yield self._after(self.machine.controller.cycles_per_barrier)

    def _fetch_map(self, number):
        if number < len(self.works) and self.works[number].map_bytes:
            moved, _ = self.memory.segment(PROTECTED, self.works[number].map_bytes)
            yield self._after(self.ways.latency(PROTECTED, external=True))
            self.bus.ask("controller", ceil(moved / self.ways.external["weights"]))
            yield lambda: self.bus.is_done("controller")

    def _load(self, number, work, array):
        tiles = work.tiles[array.domain]
        for place, tile in enumerate(tiles):
            if work.layer.weights and not tile.keeps_weights:
                yield array.weights.take_if_free
            if not tile.keeps_inputs:
                yield array.inputs.take_if_free
            yield self._after(self.machine.controller.cycles_per_tile)
            start = self.now
            streams = [(stream.holder, stream.external) for stream in tile.loads]
            yield self._after(max([self.ways.latency(*each) for each in streams], default=0))
            yield self._transfer(array, array.load_port, tile.loads)
            self._note("load", number, array, place, start)
            self.ended.add(("loaded", number, array.domain, place))

    def _transfer(self, array, port, streams):
        """Move streams over the bus and the local port at the same time; return when it is done."""
        bus, local = self.ways.cycles(array.domain, streams)
        self.bus.ask(port, bus)
        array.port.ask(port, local)
        return lambda: self.bus.is_done(port) and array.port.is_done(port)

    def _compute(self, number, work, array):
        tiles = work.tiles[array.domain]
        on_array = work.layer.has_neurons

        def do(what):
            array.doing = what if on_array else "wait for vector unit"

        for place, tile in enumerate(tiles):
            do("wait for load")
            yield self._has_ended("loaded", number, array.domain, place)
            do("wait for store")
            if tile.stores:
                yield array.outputs.take_if_free
            do("compute")
            start = self.now
            yield self._after(tile.cycles)
            self._note("compute", number, array, place, start)
            following = tiles[place + 1] if place + 1 < len(tiles) else None
            if following is None or not following.keeps_inputs:
                array.inputs.give_back()
            if work.layer.weights and (following is None or not following.keeps_weights):
                array.weights.give_back()
            self.ended.add(("computed", number, array.domain, place))
        do("wait for store")
        yield self._has_ended("_store", number, array.domain)
        if on_array:
            do("wait at barrier")

    def _store(self, number, work, array):
        for place, tile in enumerate(work.tiles[array.domain]):
            yield self._has_ended("computed", number, array.domain, place)
            if tile.stores:
                start = self.now
                yield self._transfer(array, array.store_port, tile.stores)
                array.outputs.give_back()
                self._note("store", number, array, place, start)

    def _note(self, what, number, array, place, start):
        if self.now > start:
            name = self.works[number].layer.name
            self.spans[what, array.domain, name, place] = start, self.now

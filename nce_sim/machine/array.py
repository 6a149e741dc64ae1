"""One array at work: the processes that load, compute and store its tiles."""

from collections.abc import Generator
from dataclasses import dataclass

import simpy

from nce_sim.machine.buffer import DoubleBuffers, Progress
from nce_sim.machine.channel import Channel
from nce_sim.machine.controller import Controller
from nce_sim.machine.memory import Transport, Way, purpose
from nce_sim.machine.probe import COMPUTE, LOAD, STORE, Timeline
from nce_sim.schedule.program import LayerWork
from nce_sim.schedule.tiles import Stream, Tile

Process = Generator[simpy.Event, None, None]


def array_name(domain: str) -> str:
    """Return the name of a domain's array on the timeline."""
    return f"{domain} array"


@dataclass(frozen=True)
class Paths:
    """What a domain is wired to."""

    env: simpy.Environment
    bus: Channel
    transport: Transport
    local_port: Channel
    controller: Controller
    timeline: Timeline


class DomainEngine:
    """Runs one array's tiles of a layer: three processes a layer, linked by credits."""

    def __init__(self, domain: str, paths: Paths) -> None:
        self.domain, self.paths = domain, paths
        self.env = paths.env
        self.buffers = DoubleBuffers.create(paths.env)
        self.load_port, self.store_port = f"{domain} load", f"{domain} store"
        self.computed_until = self.stored_until = 0

    def run_layer(self, work: LayerWork) -> simpy.Event:
        """Start the array's processes for a layer; return the event of their end."""
        tiles = work.tiles(self.domain)
        self.computed_until = self.stored_until = int(self.env.now)
        loaded, computed = Progress(self.env), Progress(self.env)
        self.env.process(self._load(work, tiles, loaded))
        self.env.process(self._compute(work, tiles, loaded, computed))
        return self.env.process(self._store(work, tiles, computed))

    def _load(self, work: LayerWork, tiles: tuple[Tile, ...], loaded: Progress) -> Process:
        """Take halves, let the controller issue the tile, and move its operands."""
        buffers, layer, env = self.buffers, work.layer.name, self.env
        has_weights = work.layer.weights > 0
        issue_cycles = self.paths.controller.issue_cycles
        for number, tile in enumerate(tiles):
            if has_weights and not tile.keeps_weights:
                half = buffers.weights.take()
                if half is not None:
                    yield half
            if not tile.keeps_inputs:
                half = buffers.inputs.take()
                if half is not None:
                    yield half
            start = int(env.now) + issue_cycles
            way = self.paths.transport.load(self.domain, tile.loads)
            if issue_cycles + way.latency_cycles:
                yield env.timeout(issue_cycles + way.latency_cycles)
            yield from self._transfer(self.load_port, way, tile.loads)
            self.paths.timeline.add(self.load_port, "load", layer, number, start, int(env.now))
            loaded.step()

    def _transfer(self, port: str, way: Way, streams: tuple[Stream, ...]) -> Process:
        """Move a tile's data over the bus and the local port, at the same time."""
        for stream in streams:
            local = not stream.external and stream.domain == self.domain
            channel = self.paths.local_port if local else self.paths.bus
            channel.traffic.add(purpose(self.domain, stream), stream.moved_bytes)
        on_bus = self.paths.bus.request(port, way.bus_cycles) if way.bus_cycles else None
        if way.local_cycles:
            yield self.paths.local_port.request(port, way.local_cycles)
        if on_bus is not None and not on_bus.processed:
            yield on_bus

    def _compute(
        self, work: LayerWork, tiles: tuple[Tile, ...], loaded: Progress, computed: Progress
    ) -> Process:
        resource = array_name(self.domain) if work.on_array else f"{self.domain} vector unit"
        timeline, layer, env = self.paths.timeline, work.layer.name, self.env
        for number, tile in enumerate(tiles):
            start = int(env.now)
            operands = loaded.of(number)
            if operands is not None:
                yield operands
                timeline.add(resource, LOAD, layer, number, start, int(env.now))
                start = int(env.now)
            half = self.buffers.outputs.take() if tile.stores else None
            if half is not None:
                yield half
                timeline.add(resource, STORE, layer, number, start, int(env.now))
                start = int(env.now)
            yield env.timeout(tile.cycles)
            self.computed_until = int(env.now)
            timeline.add(resource, COMPUTE, layer, number, start, self.computed_until)
            self._give_back(work, tiles[number + 1] if number + 1 < len(tiles) else None)
            computed.step()

    def _give_back(self, work: LayerWork, following: Tile | None) -> None:
        """Give the halves back that no later tile computes on."""
        if following is None or not following.keeps_inputs:
            self.buffers.inputs.give_back()
        if work.layer.weights and (following is None or not following.keeps_weights):
            self.buffers.weights.give_back()

    def _store(self, work: LayerWork, tiles: tuple[Tile, ...], computed: Progress) -> Process:
        for number, tile in enumerate(tiles):
            outputs = computed.of(number)
            if outputs is not None:
                yield outputs
            if not tile.stores:
                continue
            start = int(self.env.now)
            way = self.paths.transport.store(self.domain, tile.stores)
            yield from self._transfer(self.store_port, way, tile.stores)
            self.buffers.outputs.give_back()
            self.stored_until = int(self.env.now)
            self.paths.timeline.add(
                self.store_port, "store", work.layer.name, number, start, self.stored_until
            )

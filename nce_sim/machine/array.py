"""One domain at work: the processes that load, compute and store its tiles."""

from collections.abc import Generator
from dataclasses import dataclass
from fractions import Fraction

import simpy

from nce_sim.machine.buffer import DoubleBuffers
from nce_sim.machine.channel import Channel
from nce_sim.machine.controller import Controller
from nce_sim.machine.memory import ExternalMemory
from nce_sim.machine.probe import COMPUTE, LOAD, STORE, Timeline
from nce_sim.schedule.domains import FOREIGN
from nce_sim.schedule.program import RESIDENT, DomainWork, LayerWork
from nce_sim.schedule.tiles import Tile

Process = Generator[simpy.Event, None, None]


def array_name(domain: str) -> str:
    """Return the name of a domain's array on the timeline."""
    return f"{domain} array"


@dataclass(frozen=True)
class Paths:
    """What a domain is wired to."""

    env: simpy.Environment
    bus: Channel
    memory: ExternalMemory
    local_port: Channel
    controller: Controller
    timeline: Timeline


class DomainEngine:
    """Runs one domain's share of a layer: three processes a layer, linked by credits."""

    def __init__(self, domain: str, paths: Paths) -> None:
        self.domain, self.paths = domain, paths
        self.env = paths.env
        self.buffers = DoubleBuffers.create(paths.env)
        self.load_port, self.store_port = f"{domain} load", f"{domain} store"

    def run_layer(self, work: LayerWork) -> simpy.Event:
        """Start the domain's processes for a layer; return the event of their end."""
        share = work.domains[self.domain]
        loaded = [self.env.event() for _ in share.tiles]
        computed = [self.env.event() for _ in share.tiles]
        processes = [
            self.env.process(self._load(work, share, loaded)),
            self.env.process(self._compute(work, share, loaded, computed)),
            self.env.process(self._store(work, share, computed)),
        ]
        return self.env.all_of(processes)

    def _load(self, work: LayerWork, share: DomainWork, loaded: list[simpy.Event]) -> Process:
        for number, tile in enumerate(share.tiles):
            if tile.weight_bytes:
                yield self.buffers.weights.get(1)
            if not tile.keeps_inputs:
                yield self.buffers.inputs.get(1)
            yield from self.paths.controller.issue_tile()
            start = int(self.env.now)
            transfers = self._operands(share, tile)
            if any(purpose_is_external for _, purpose_is_external in transfers):
                yield self.env.timeout(self.paths.memory.config.latency_cycles)
            events = [self._request(transfer) for transfer, _ in transfers]
            if events:
                yield self.env.all_of(events)
            self.paths.timeline.add(
                self.load_port, "load", work.layer.name, number, start, int(self.env.now)
            )
            loaded[number].succeed()

    def _operands(
        self, share: DomainWork, tile: Tile
    ) -> list[tuple[tuple[Channel, str, int, Fraction | None], bool]]:
        """List the transfers of a tile's operands, and whether each is external."""
        memory, bus, foreign = self.paths.memory, self.paths.bus, FOREIGN[self.domain]
        rate = memory.bytes_per_cycle
        found: list[tuple[tuple[Channel, str, int, Fraction | None], bool]] = []

        def external(purpose: str, region: str, size: int) -> None:
            found.append(((bus, purpose, memory.moved_bytes(region, size), rate), True))

        if tile.weight_bytes:
            external("weights", self.domain, tile.weight_bytes)
        if tile.own_input_bytes:
            if share.own_inputs == RESIDENT:
                local = (self.paths.local_port, "inputs", tile.own_input_bytes, None)
                found.append((local, False))
            else:
                external("inputs", self.domain, tile.own_input_bytes)
        if tile.foreign_input_bytes:
            if share.foreign_inputs == RESIDENT:
                found.append(((bus, "crossings on chip", tile.foreign_input_bytes, None), False))
            else:
                external("crossings from memory", foreign, tile.foreign_input_bytes)
        return found

    def _request(self, transfer: tuple[Channel, str, int, Fraction | None]) -> simpy.Event:
        channel, purpose, size, limit = transfer
        return channel.request(self.load_port, f"{self.domain} {purpose}", size, limit)

    def _compute(
        self, work: LayerWork, share: DomainWork, loaded: list[simpy.Event],
        computed: list[simpy.Event],
    ) -> Process:  # fmt: skip
        resource = array_name(self.domain) if work.on_array else f"{self.domain} vector unit"
        timeline, layer = self.paths.timeline, work.layer.name
        for number, tile in enumerate(share.tiles):
            start = int(self.env.now)
            yield loaded[number]
            timeline.add(resource, LOAD, layer, number, start, int(self.env.now))
            start = int(self.env.now)
            if tile.output_bytes:
                yield self.buffers.outputs.get(1)
            timeline.add(resource, STORE, layer, number, start, int(self.env.now))
            start = int(self.env.now)
            yield self.env.timeout(tile.cycles)
            timeline.add(resource, COMPUTE, layer, number, start, int(self.env.now))
            self._give_back(share, number)
            computed[number].succeed()

    def _give_back(self, share: DomainWork, number: int) -> None:
        """Give the halves back that no later tile computes on."""
        is_last = number + 1 == len(share.tiles)
        following = None if is_last else share.tiles[number + 1]
        if following is None or not following.keeps_inputs:
            self.buffers.inputs.put(1)
        if self._holds_weights(share, number) and (
            following is None or not following.keeps_weights
        ):
            self.buffers.weights.put(1)

    def _holds_weights(self, share: DomainWork, number: int) -> bool:
        tile = share.tiles[number]
        return bool(tile.weight_bytes) or (tile.keeps_weights and share.tiles[0].weight_bytes > 0)

    def _store(self, work: LayerWork, share: DomainWork, computed: list[simpy.Event]) -> Process:
        for number, tile in enumerate(share.tiles):
            yield computed[number]
            if not tile.output_bytes:
                continue
            start = int(self.env.now)
            if share.outputs == RESIDENT:
                done = self.paths.local_port.request(
                    self.store_port, f"{self.domain} outputs", tile.output_bytes
                )
            else:
                memory = self.paths.memory
                done = self.paths.bus.request(
                    self.store_port,
                    f"{self.domain} spilled outputs",
                    memory.moved_bytes(self.domain, tile.output_bytes),
                    memory.bytes_per_cycle,
                )
            yield done
            self.buffers.outputs.put(1)
            self.paths.timeline.add(
                self.store_port, "store", work.layer.name, number, start, int(self.env.now)
            )

"""How long data are on the way: rates and latencies of the bus, the memory and the buffers' ports.

All of a tile's loads that take the same path are one transfer, so that the remainder of a cycle is
carried from one stream to the next; it is rounded up once, to at least one cycle.
"""

from fractions import Fraction
from math import lcm
from typing import NamedTuple

from nce_sim.config.machine_schema import MachineConfig, exact
from nce_sim.schedule.domains import DOMAINS, PROTECTED
from nce_sim.schedule.tiles import CROSSINGS, INPUTS, OUTPUTS, WEIGHTS, Stream

LOCAL = "local"


class Way(NamedTuple):
    """What one set of streams takes: a latency, then cycles of the bus and of the local port."""

    latency_cycles: int
    bus_cycles: int
    local_cycles: int


class Transport:
    """Turns streams into cycles, for one machine."""

    def __init__(self, machine: MachineConfig) -> None:
        memory, bus = machine.memory, exact(machine.bus.bytes_per_cycle)
        self.machine = machine
        efficiency = {
            WEIGHTS: memory.efficiency.weights,
            INPUTS: memory.efficiency.maps,
            CROSSINGS: memory.efficiency.maps,
            OUTPUTS: memory.efficiency.writes,
        }
        external = {what: min(bus, memory.rate(share)) for what, share in efficiency.items()}
        ports = {
            domain: exact(machine.domains[domain].buffers.port_bytes_per_cycle)
            for domain in DOMAINS
        }
        on_chip = {domain: min(bus, port) for domain, port in ports.items()}
        rates = [*external.values(), *on_chip.values(), *ports.values()]
        self._scale = lcm(*(rate.numerator for rate in rates))
        self._external = {what: self._cost(rate) for what, rate in external.items()}
        self._on_chip = {domain: self._cost(rate) for domain, rate in on_chip.items()}
        self._port = {domain: self._cost(rate) for domain, rate in ports.items()}
        self._latency = {
            domain: memory.latency_cycles + (memory.codec_cycles if domain == PROTECTED else 0)
            for domain in DOMAINS
        }

    def _cost(self, rate: Fraction) -> int:
        """Return the time of one byte, in units of 1/scale cycles."""
        return rate.denominator * (self._scale // rate.numerator)

    def load(self, array: str, streams: tuple[Stream, ...]) -> Way:
        """Return what the loads of a tile on an array take."""
        return Way(
            max((self._latency_of(stream) for stream in streams), default=0),
            *self._cycles(array, streams),
        )

    def store(self, array: str, streams: tuple[Stream, ...]) -> Way:
        """Return what the stores of a tile take; writes are posted and wait for no latency."""
        return Way(0, *self._cycles(array, streams))

    def map_fetch(self, moved_bytes: int) -> Way:
        """Return what reading a part of the protection map from the protected region takes."""
        bus = -(-moved_bytes * self._external[WEIGHTS] // self._scale)
        return Way(self._latency[PROTECTED], bus, 0)

    def _latency_of(self, stream: Stream) -> int:
        if stream.external:
            return self._latency[stream.domain]
        return self.machine.domains[stream.domain].buffers.codec_cycles

    def _cycles(self, array: str, streams: tuple[Stream, ...]) -> tuple[int, int]:
        bus = local = 0
        for stream in streams:
            if stream.external:
                bus += stream.moved_bytes * self._external[stream.what]
            elif stream.domain == array:
                local += stream.moved_bytes * self._port[array]
            else:
                bus += stream.moved_bytes * self._on_chip[stream.domain]
        return -(-bus // self._scale), -(-local // self._scale)


def purpose(array: str, stream: Stream) -> str:
    """Return what a stream is called in the counts of a channel."""
    place = "from memory" if stream.external else "on chip"
    if stream.what == CROSSINGS:
        return f"{array} crossings {place}"
    if stream.what == OUTPUTS and stream.external:
        return f"{array} spilled outputs"
    if stream.what == OUTPUTS and stream.domain != array:
        return f"{array} overflow outputs on chip"
    return f"{array} {stream.what}"

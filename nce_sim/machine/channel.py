"""A shared path for bytes: the bus, and the port between a domain's local buffers."""

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field
from fractions import Fraction

import simpy

END_OF_CYCLE = 2
"""Priority after all ordinary events of a cycle: completions come before grants."""


@dataclass
class Transfer:
    """A request to move bytes, at most at `bytes_per_cycle`; `done` happens when all have moved."""

    remaining_bytes: int
    bytes_per_cycle: Fraction
    done: simpy.Event


@dataclass
class Traffic:
    """What a channel has moved, by purpose, and how long it was busy."""

    busy_cycles: int = 0
    bytes_by_purpose: dict[str, int] = field(default_factory=dict)


class Channel:
    """Serves its ports round robin, a quantum at a time.

    A grant moves at most `quantum_bytes` of the port's oldest transfer, at the slower of the
    channel's and the transfer's rate. Cycles are whole; the part of a cycle that a grant does not
    use is given to the next while the channel stays busy.
    """

    def __init__(
        self,
        env: simpy.Environment,
        name: str,
        bytes_per_cycle: Fraction,
        quantum_bytes: int,
        ports: tuple[str, ...],
    ) -> None:
        self.env, self.name = env, name
        self.bytes_per_cycle, self.quantum_bytes = bytes_per_cycle, quantum_bytes
        self.traffic = Traffic()
        self._ports = ports
        self._queues: dict[str, deque[Transfer]] = {port: deque() for port in ports}
        self._next = 0
        self._wake: simpy.Event | None = None
        env.process(self._serve())

    def request(
        self, port: str, purpose: str, size_bytes: int, limit: Fraction | None = None
    ) -> simpy.Event:
        """Queue a transfer at a port and return the event of its completion.

        `limit` is the bytes per cycle of the slowest part on the way, if slower than the channel.
        """
        rate = self.bytes_per_cycle if limit is None else min(limit, self.bytes_per_cycle)
        transfer = Transfer(size_bytes, rate, self.env.event())
        moved = self.traffic.bytes_by_purpose
        moved[purpose] = moved.get(purpose, 0) + size_bytes
        self._queues[port].append(transfer)
        wake, self._wake = self._wake, None
        if wake is not None:
            wake.succeed()
        return transfer.done

    def _serve(self) -> Generator[simpy.Event, None, None]:
        owed = Fraction(0)
        while True:
            if not any(self._queues.values()):
                owed = Fraction(0)
                self._wake = self.env.event()
                yield self._wake
            yield end_of_cycle(self.env)
            port = self._choose()
            transfer = self._queues[port][0]
            moved = min(transfer.remaining_bytes, self.quantum_bytes)
            owed += moved / transfer.bytes_per_cycle
            cycles = max(0, -(-owed.numerator // owed.denominator))
            owed -= cycles
            yield self.env.timeout(cycles)
            self.traffic.busy_cycles += cycles
            transfer.remaining_bytes -= moved
            if transfer.remaining_bytes == 0:
                self._queues[port].popleft()
                transfer.done.succeed()

    def _choose(self) -> str:
        """Return the next port in turn that has a transfer waiting."""
        count = len(self._ports)
        for step in range(count):
            place = (self._next + step) % count
            if self._queues[self._ports[place]]:
                self._next = (place + 1) % count
                return self._ports[place]
        raise AssertionError("no transfer is waiting")


def end_of_cycle(env: simpy.Environment) -> simpy.Event:
    """Return an event of this cycle that comes after all others that are scheduled by then."""
    event = env.event()
    event._ok, event._value = True, None
    env.schedule(event, priority=END_OF_CYCLE)  # type: ignore[arg-type]
    return event

"""A shared path: the bus, and the port between a domain's local buffers.

Its ports are asked in a fixed order, round robin or by priority. A grant lasts at most a quantum of
cycles; within a cycle, completions and all that follows from them come before grants. Between two
arrivals the grants follow from the queues, so they are computed and not simulated one by one: an
event happens only where a transfer ends, and an arrival cuts the computed grants at the end of the
one under way. A grant of the cycle in which another request arrives is not made yet: it is computed
again.
"""

import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import simpy
from simpy.events import NORMAL

from nce_sim.machine.events import happen

NO_LIMIT = sys.maxsize


@dataclass(slots=True)
class Transfer:
    """A request for `cycles` of a channel, at least one; `done` happens when all have passed."""

    remaining_cycles: int
    done: simpy.Event


@dataclass
class Traffic:
    """What a channel has moved, by purpose, and how long it was busy."""

    busy_cycles: int = 0
    bytes_by_purpose: dict[str, int] = field(default_factory=dict)

    def add(self, purpose: str, size_bytes: int) -> None:
        """Count bytes that a transfer moves."""
        moved = self.bytes_by_purpose
        moved[purpose] = moved.get(purpose, 0) + size_bytes


class Channel:
    """Serves its ports, a quantum of cycles at a time; None is no limit.

    `watch` is told of every interval in which the same ports are served in turn.
    """

    def __init__(
        self,
        env: simpy.Environment,
        ports: tuple[str, ...],
        quantum_cycles: int | None = None,
        priority: bool = False,
        watch: Callable[[tuple[str, ...], int, int], None] | None = None,
    ) -> None:
        self.env, self.ports, self.watch = env, ports, watch
        self.quantum_cycles = NO_LIMIT if quantum_cycles is None else quantum_cycles
        self.priority = priority
        self.traffic = Traffic()
        self._place = {port: place for place, port in enumerate(ports)}
        self._queues: list[deque[Transfer]] = [deque() for _ in ports]
        self._first = 0
        self._turn: list[int] = []
        self._start = self._end = 0
        self._due: simpy.Event | None = None

    def request(self, port: str, cycles: int) -> simpy.Event:
        """Queue a transfer of at least one cycle at a port; return the event of its completion."""
        done = self.env.event()
        queue = self._queues[self._place[port]]
        queue.append(Transfer(cycles, done))
        if not self._turn:
            self._decide()
        elif len(queue) == 1:
            self._cut()
        return done

    def _decide(self) -> None:
        """Compute the grants from now on up to the first completion."""
        waiting = [place for place, queue in enumerate(self._queues) if queue]
        if len(waiting) > 1:
            if self.priority:
                del waiting[1:]
            else:
                later = [place for place in waiting if place >= self._first]
                waiting = later + waiting[: len(waiting) - len(later)]
        self._turn, self._start = waiting, int(self.env.now)
        if waiting:
            self._end = self._cycles_to_completion()
            self._wait()

    def _cycles_to_completion(self) -> int:
        """Return when the first of the ports in turn has had all its cycles."""
        quantum = self.quantum_cycles
        left = [self._queues[place][0].remaining_cycles for place in self._turn]
        if len(left) == 1:
            return left[0]
        full_rounds = min(-(-cycles // quantum) for cycles in left) - 1
        passed = full_rounds * quantum * len(left)
        for cycles in left:
            last_grant = cycles - full_rounds * quantum
            if last_grant <= quantum:
                return passed + last_grant
            passed += quantum
        raise AssertionError("no transfer ends")

    def _cut(self) -> None:
        """Let the grant under way end, and decide again; one that begins now is not made yet."""
        elapsed = int(self.env.now) - self._start
        end = -(-elapsed // self.quantum_cycles) * self.quantum_cycles
        if end >= self._end:
            return
        self._end = end
        if end > elapsed:
            self._wait()
        else:
            self._take_up()

    def _wait(self) -> None:
        """Take up what has been served when the computed grants have passed."""
        due = self.env.event()
        due._ok, due._value = True, None
        due.callbacks.append(self._pass)
        delay = self._start + self._end - int(self.env.now)
        self.env.schedule(due, NORMAL, delay)
        self._due = due

    def _pass(self, event: simpy.Event) -> None:
        if event is self._due:  # or an arrival has cut these grants short
            self._take_up()

    def _take_up(self) -> None:
        """Count the grants made, all whole but the last if it completes a transfer; go on."""
        self._due = None
        completed = self._count_grants() if self._end else None
        if self.watch is not None and self._end:
            served = tuple(self.ports[place] for place in self._turn)
            self.watch(served, self._start, self._start + self._end)
        self._decide()
        if completed is not None:
            happen(completed.done)

    def _count_grants(self) -> Transfer | None:
        """Take the cycles granted off the transfers; return the one that is completed, if any."""
        rounds, rest = divmod(self._end, self.quantum_cycles * len(self._turn))
        self.traffic.busy_cycles += self._end
        last, completed = self._turn[-1], None
        for place in self._turn:
            transfer = self._queues[place][0]
            grant = min(rest, self.quantum_cycles)
            transfer.remaining_cycles -= rounds * self.quantum_cycles + grant
            rest -= grant
            last = place if grant else last
            if transfer.remaining_cycles == 0:
                completed = self._queues[place].popleft()
        self._first = (last + 1) % len(self.ports)
        return completed

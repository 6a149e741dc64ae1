"""A shared path: the bus, and the port between a domain's local buffers.

Its ports are asked in a fixed order, round robin or by priority. A grant lasts at most a quantum of
cycles; within a cycle, completions and all that follows from them come before grants. Between two
arrivals the grants follow from the queues, so they are computed and not simulated one by one: an
event happens only where a transfer ends, and an arrival cuts the computed grants at the end of the
one under way. A grant of the cycle in which another request arrives is not made yet: it is computed
anew.
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

    `watch` is told (places of the ports served in turn, start, end) of every interval.
    """

    def __init__(
        self,
        env: simpy.Environment,
        ports: tuple[str, ...],
        quantum_cycles: int | None = None,
        priority: bool = False,
        watch: Callable[[tuple[int, ...], int, int], None] | None = None,
    ) -> None:
        self.env, self.ports, self.watch = env, ports, watch
        self.quantum_cycles = NO_LIMIT if quantum_cycles is None else quantum_cycles
        self.priority = priority
        self.traffic = Traffic()
        self._place = {port: place for place, port in enumerate(ports)}
        self._queues: list[deque[Transfer]] = [deque() for _ in ports]
        self._first = 0
        self._turn: list[int] = []
        self._start = self._length = 0
        self._due: simpy.Event | None = None

    def request(self, port: str, cycles: int) -> simpy.Event:
        """Queue a transfer of at least one cycle at a port; return the event of its completion."""
        done = self.env.event()
        queue = self._queues[self._place[port]]
        queue.append(Transfer(cycles, done))
        if not self._turn:
            self._decide(int(self.env.now))
        elif len(queue) == 1:
            self._decide_again()
        return done

    def _decide(self, start: int) -> None:
        """Compute the grants from `start` on up to the first completion."""
        waiting = [place for place, queue in enumerate(self._queues) if queue]
        if len(waiting) > 1:
            if self.priority:
                del waiting[1:]
            elif waiting[0] < self._first <= waiting[-1]:
                later = [place for place in waiting if place >= self._first]
                waiting = later + waiting[: len(waiting) - len(later)]
        self._turn, self._start = waiting, start
        if waiting:
            self._length = self._cycles_to_completion()
            self._wait(start + self._length)

    def _cycles_to_completion(self) -> int:
        """Return when the first of the ports in turn has had all its cycles."""
        if len(self._turn) == 1:
            return self._queues[self._turn[0]][0].remaining_cycles
        quantum = self.quantum_cycles
        left = [self._queues[place][0].remaining_cycles for place in self._turn]
        full_rounds = (min(left) - 1) // quantum
        passed = full_rounds * quantum * len(left)
        for cycles in left:
            last_grant = cycles - full_rounds * quantum
            if last_grant <= quantum:
                return passed + last_grant
            passed += quantum
        raise AssertionError("no transfer ends")

    def _decide_again(self) -> None:
        """Let the grant under way end, and decide anew from there; one that begins now is not made.

        Grants that have been decided anew may not have begun yet.
        """
        elapsed = max(0, int(self.env.now) - self._start)
        passed = -(-elapsed // self.quantum_cycles) * self.quantum_cycles
        if passed < self._length:
            self._count_grants(passed)
            self._decide(self._start + passed)

    def _wait(self, end: int) -> None:
        """Go on when the computed grants have passed."""
        due = self.env.event()
        due._ok, due._value = True, None
        due.callbacks.append(self._pass)
        self.env.schedule(due, NORMAL, end - self.env.now)
        self._due = due

    def _pass(self, event: simpy.Event) -> None:
        """Complete a transfer, unless an arrival has changed the grants since."""
        if event is self._due:
            completed = self._count_grants(self._length)
            self._decide(self._start + self._length)
            assert completed is not None
            happen(completed.done)

    def _count_grants(self, passed: int) -> Transfer | None:
        """Take `passed` cycles of grants off the transfers; return the one completed, if any.

        All grants are whole but the last if it completes a transfer.
        """
        if passed == 0:
            return None
        self.traffic.busy_cycles += passed
        if self.watch is not None:
            self.watch(tuple(self._turn), self._start, self._start + passed)
        if len(self._turn) == 1:
            self._first = (self._turn[0] + 1) % len(self.ports)
            return self._take(self._turn[0], passed)
        last, grants = self._grants(passed)
        self._first = (last + 1) % len(self.ports)
        completed: Transfer | None = None
        for place, grant in zip(self._turn, grants, strict=True):
            completed = self._take(place, grant) or completed
        return completed

    def _take(self, place: int, grant: int) -> Transfer | None:
        """Take cycles off a port's transfer; return the transfer if that completes it."""
        queue = self._queues[place]
        transfer = queue[0]
        transfer.remaining_cycles -= grant
        return queue.popleft() if transfer.remaining_cycles == 0 else None

    def _grants(self, passed: int) -> tuple[int, list[int]]:
        """Return the port that was served last, and the cycles that each port in turn had."""
        rounds, rest = divmod(passed, self.quantum_cycles * len(self._turn))
        last, grants = self._turn[-1], []
        for place in self._turn:
            grant = min(rest, self.quantum_cycles)
            rest -= grant
            last = place if grant else last
            grants.append(rounds * self.quantum_cycles + grant)
        return last, grants

"""A shared path: the bus, the port between a domain's local buffers, the controller's sequencer.

Its ports are asked in a fixed order, round robin or by priority. A grant lasts at most a quantum of
cycles; within a cycle, completions and all that follows from them come before grants. Between two
arrivals the grants follow from the queues, so they are computed and not simulated one by one: an
event happens only where a transfer ends, and an arrival cuts the computed grants at the end of the
one under way.
"""

import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import simpy
from simpy.events import NORMAL

END_OF_CYCLE = 2
"""Priority after all ordinary events of a cycle: completions come before grants."""

NO_LIMIT = sys.maxsize
IDLE, DECIDING, GRANTED, CUT = "idle", "deciding", "granted", "cut"


@dataclass
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
        self._state = IDLE

    def request(self, port: str, cycles: int) -> simpy.Event:
        """Queue a transfer of at least one cycle at a port; return the event of its completion."""
        done = self.env.event()
        queue = self._queues[self._place[port]]
        queue.append(Transfer(cycles, done))
        if self._state is IDLE:
            self._decide_at_end_of_cycle()
        elif self._state is GRANTED and len(queue) == 1:
            self._cut()
        return done

    def _decide_at_end_of_cycle(self) -> None:
        self._state = DECIDING
        _at(self.env, 0, self._decide, END_OF_CYCLE)

    def _decide(self, _: simpy.Event) -> None:
        """Compute the grants up to the first completion."""
        waiting = [place for place, queue in enumerate(self._queues) if queue]
        if len(waiting) > 1:
            if self.priority:
                del waiting[1:]
            else:
                later = [place for place in waiting if place >= self._first]
                waiting = later + waiting[: len(waiting) - len(later)]
        self._state, self._turn, self._start = GRANTED, waiting, int(self.env.now)
        self._end = self._cycles_to_completion()
        self._wait_until(self._end)

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
        if end < self._end:
            self._state, self._end = CUT, end
            self._wait_until(end)

    def _wait_until(self, end: int) -> None:
        """Take up what has been served when `end` cycles from the start have passed."""
        self._due = _at(self.env, self._start + end - int(self.env.now), self._take_up)

    def _take_up(self, event: simpy.Event) -> None:
        """Count the grants made, all whole but the last if it completes a transfer."""
        if event is not self._due:
            return  # an arrival has cut these grants short
        rounds, rest = divmod(self._end, self.quantum_cycles * len(self._turn))
        last = self._turn[-1]
        completed = None
        for place in self._turn:
            transfer = self._queues[place][0]
            grant = min(rest, self.quantum_cycles)
            transfer.remaining_cycles -= rounds * self.quantum_cycles + grant
            rest -= grant
            last = place if grant else last
            if transfer.remaining_cycles == 0:
                completed = self._queues[place].popleft()
        self._first = (last + 1) % len(self.ports)
        self._record()
        self._state = IDLE
        if any(self._queues):
            self._decide_at_end_of_cycle()
        if completed is not None:
            _happen(completed.done)

    def _record(self) -> None:
        self.traffic.busy_cycles += self._end
        if self.watch is not None and self._end:
            served = tuple(self.ports[place] for place in self._turn)
            self.watch(served, self._start, self._start + self._end)


def _happen(event: simpy.Event) -> None:
    """Let an event happen within the one that causes it, without a turn in the queue of its own."""
    callbacks, event.callbacks = event.callbacks, None  # type: ignore[assignment]
    event._ok, event._value = True, None
    for callback in callbacks:
        callback(event)


def _at(
    env: simpy.Environment, delay: int, action: Callable[[simpy.Event], None],
    priority: int = NORMAL,
) -> simpy.Event:  # fmt: skip
    """Run `action` after a delay, within its cycle in the order of priority; return its event."""
    event = env.event()
    event._ok, event._value = True, None
    event.callbacks.append(action)
    env.schedule(event, priority=priority, delay=delay)  # type: ignore[arg-type]
    return event

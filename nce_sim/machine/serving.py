"""Requests queue at one engine, which changes its split between inferences where it is told to.

The engine serves the requests in the order of their arrival, one at a time. When an inference has
ended, a callback may ask for a change: the engine has drained, nothing runs while the change takes
its cycles, and requests wait. What an inference and a change are is the callbacks' business.

Of what happens in one cycle, arrivals come first: whoever decides at the end of an inference sees
the requests that arrive in that very cycle.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass

import simpy
from simpy.events import URGENT

from nce_sim.errors import InputError


@dataclass(frozen=True)
class Queued:
    """What waits: how many requests, and when the oldest of them arrived (None: none waits)."""

    requests: int
    oldest: int | None


@dataclass(frozen=True)
class Callbacks:
    """What the loop asks and tells; cycles count from its start.

    `begin` (request, arrival, now) returns the cycles of the inference that begins, at least one.
    `end` (request, arrival, now, what waits) returns the cycles of the change that follows, 0 if
    there is none. `idle` is told the intervals (start, end) in which no request was there.
    """

    begin: Callable[[int, int, int], int]
    end: Callable[[int, int, int, Queued], int]
    idle: Callable[[int, int], None]


def serve(arrivals: Iterable[tuple[int, int]], callbacks: Callbacks) -> int:
    """Serve all requests, (number, cycle of arrival) in order of time; return the last cycle.

    Arrivals are drawn as time goes on: only those that wait are kept. Raises InputError where they
    run backwards.
    """
    loop = _Loop(arrivals, callbacks)
    loop.env.process(loop.arrive())
    loop.env.process(loop.work())
    loop.env.run()
    return int(loop.env.now)


class _Loop:
    def __init__(self, arrivals: Iterable[tuple[int, int]], callbacks: Callbacks) -> None:
        self.env = simpy.Environment()
        self.arrivals, self.callbacks = arrivals, callbacks
        self.queue: deque[tuple[int, int]] = deque()
        self.closed = False
        self.called: simpy.Event | None = None

    def arrive(self) -> Generator[simpy.Event, None, None]:
        """Queue each request in its cycle, before anything else that happens there."""
        for request, cycle in self.arrivals:
            ahead = cycle - int(self.env.now)
            if ahead < 0:
                raise InputError(
                    f"request {request} arrives in cycle {cycle:,}, after one of cycle "
                    f"{int(self.env.now):,}: give the arrivals in order of time"
                )
            if ahead:
                yield self._first_in(ahead)
            self.queue.append((request, cycle))
            self._call()
        self.closed = True
        self._call()

    def _first_in(self, cycles: int) -> simpy.Event:
        """Return an event that comes before all others of its cycle."""
        event = self.env.event()
        event._ok, event._value = True, None
        self.env.schedule(event, URGENT, cycles)
        return event

    def _call(self) -> None:
        if self.called is not None:
            called, self.called = self.called, None
            called.succeed()

    def work(self) -> Generator[simpy.Event, None, None]:
        """Serve until no request waits and none is to come."""
        env, queue, callbacks = self.env, self.queue, self.callbacks
        while True:
            while queue:
                request, arrival = queue.popleft()
                yield env.timeout(callbacks.begin(request, arrival, int(env.now)))
                waiting = Queued(len(queue), queue[0][1] if queue else None)
                change = callbacks.end(request, arrival, int(env.now), waiting)
                if change:
                    yield env.timeout(change)
            if self.closed:
                return
            start, self.called = int(env.now), env.event()
            yield self.called
            if env.now > start:
                callbacks.idle(start, int(env.now))

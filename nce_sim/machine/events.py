"""Events that need no turn in the queue of the simulation."""

import simpy


def happen(event: simpy.Event) -> None:
    """Let an event happen at once, within the one that causes it.

    For events with a single process that waits: it goes on before the causing one does, in the same
    cycle, which costs no turn in the queue. No rule of the machine depends on the order within a
    cycle.
    """
    callbacks, event.callbacks = event.callbacks, None  # type: ignore[assignment]
    event._ok, event._value = True, None
    for callback in callbacks:
        callback(event)

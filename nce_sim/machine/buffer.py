"""What links load, compute and store: credits for the halves of double buffers, and progress."""

from dataclasses import dataclass

import simpy

from nce_sim.machine.events import happen

HALVES = 2


class Credits:
    """The halves of one double buffer, taken by one process and given back by another."""

    def __init__(self, env: simpy.Environment) -> None:
        self.env = env
        self.free = HALVES
        self._wanted: simpy.Event | None = None

    def take(self) -> simpy.Event | None:
        """Take a half; return None, or the event of getting it if none is free now."""
        if self.free:
            self.free -= 1
            return None
        self._wanted = self.env.event()
        return self._wanted

    def give_back(self) -> None:
        """Give a half back; who waits for one gets it."""
        if self._wanted is None:
            self.free += 1
            return
        wanted, self._wanted = self._wanted, None
        happen(wanted)


class Progress:
    """How many tiles one process has finished; another waits for them in order."""

    def __init__(self, env: simpy.Environment) -> None:
        self.env = env
        self.finished = 0
        self._wanted: simpy.Event | None = None

    def step(self) -> None:
        """Finish a tile."""
        self.finished += 1
        wanted, self._wanted = self._wanted, None
        if wanted is not None:
            happen(wanted)

    def of(self, number: int) -> simpy.Event | None:
        """Return None if tile `number` is finished, or the event of finishing the next one."""
        if number < self.finished:
            return None
        self._wanted = self.env.event()
        return self._wanted


@dataclass(frozen=True)
class DoubleBuffers:
    """The credits of one domain's input, weight and output buffers.

    A credit is one half of a buffer. Loading takes it; it is given back when the last tile that
    computes on that half ends (for outputs: when the store ends). Taking credits and not mere
    places in a queue keeps a third tile from being loaded while two are held.
    """

    inputs: Credits
    weights: Credits
    outputs: Credits

    @staticmethod
    def create(env: simpy.Environment) -> "DoubleBuffers":
        """Return full credits."""
        return DoubleBuffers(Credits(env), Credits(env), Credits(env))

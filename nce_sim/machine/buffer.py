"""Double buffers: credits that keep load, compute and store one tile apart, and no more."""

from dataclasses import dataclass

import simpy

HALVES = 2


@dataclass(frozen=True)
class DoubleBuffers:
    """The credits of one domain's input, weight and output buffers.

    A credit is one half of a buffer. Loading takes it; it is given back when the last tile that
    computes on that half ends (for outputs: when the store ends). Taking credits and not mere
    places in a queue keeps a third tile from being loaded while two are held.
    """

    inputs: simpy.Container
    weights: simpy.Container
    outputs: simpy.Container

    @staticmethod
    def create(env: simpy.Environment) -> "DoubleBuffers":
        """Return full credits."""
        return DoubleBuffers(*(simpy.Container(env, HALVES, HALVES) for _ in range(3)))

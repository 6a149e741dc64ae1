"""The controller: it walks through the layers, issues tiles, and streams the protection map."""

from collections.abc import Generator

import simpy

from nce_sim.config.machine import ControllerConfig

Process = Generator[simpy.Event, None, None]


class Controller:
    """Issues one tile at a time, in the order of the requests, and counts what it did."""

    def __init__(self, env: simpy.Environment, config: ControllerConfig) -> None:
        self.env, self.config = env, config
        self.tiles = 0
        self.barriers = 0
        self._sequencer = simpy.Resource(env, capacity=1)

    def issue_tile(self) -> Process:
        """Issue one tile: it takes its cycles, and the other domain waits its turn."""
        self.tiles += 1
        if self.config.cycles_per_tile == 0:
            return
        with self._sequencer.request() as turn:
            yield turn
            yield self.env.timeout(self.config.cycles_per_tile)

    def close_layer(self) -> Process:
        """Close a layer after both domains have stored all outputs."""
        self.barriers += 1
        yield self.env.timeout(self.config.cycles_per_barrier)

"""The controller: it issues tiles to each domain one at a time, and closes layers."""

import simpy

from nce_sim.config.machine_schema import ControllerConfig


class Controller:
    """Issues the tiles and closes the layers; both domains have their own sequence of tiles."""

    def __init__(self, env: simpy.Environment, config: ControllerConfig) -> None:
        self.env, self.config = env, config

    @property
    def issue_cycles(self) -> int:
        """Cycles from free buffers to a tile's first request, while the one before computes."""
        return self.config.cycles_per_tile

    def close_layer(self) -> simpy.Event:
        """Close a layer after both domains have stored all outputs."""
        return self.env.timeout(self.config.cycles_per_barrier)

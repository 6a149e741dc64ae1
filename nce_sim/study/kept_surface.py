"""The accuracy surface of a scenario's engine, measured once and kept as long as it holds."""

from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import nce_sim
from nce_sim.errors import InputError
from nce_sim.runtime.environment import Environment
from nce_sim.runtime.lane_rate import LaneRate
from nce_sim.runtime.measure_surface import measure_surface
from nce_sim.runtime.surface import Surface, log_rates
from nce_sim.seeding import DRAWS
from nce_sim.study.scenario_engine import Engine, Stage
from nce_sim.workload.images import pixel_bytes

DECADES = 1000
"""Rates below the highest one by more than this factor are not measured, but 0 is."""

NO_RATE = 1e-9
"""A rate beside 0 where the environment has no transient faults: a surface needs one."""


def surface_of(engine: Engine, stage: Stage, keep: Path | None = None) -> Surface:
    """Return the surface over the rates and shares of dead lanes of the engine's environment.

    With `keep`, it is taken from that folder if it was measured on the same, and else kept there.
    A file that is damaged counts as none.
    """
    chosen = engine.scenario.surface
    rates = rates_of(engine.environment, engine.lane_rate, chosen.rates_a_decade)
    dead = dead_shares_of(engine.environment, chosen.dead_shares)
    path = None if keep is None else keep / f"surface-{_identity(engine, rates, dead)[:32]}.npz"
    if path is not None and path.is_file():
        try:
            return Surface.load(path)
        except InputError:
            pass
    advance = stage("measuring accuracy", chosen.inferences)
    surface = measure_surface(
        engine.network, engine.grid, engine.images, engine.labels, engine.faults, rates,
        inferences=chosen.inferences, dead_shares=dead, seed=engine.seed,
        calibration=engine.calibration, progress=lambda done, _: advance(done),
    )  # fmt: skip
    if path is not None:
        surface.save(path)
    return surface


def rates_of(
    environment: Environment, lane_rate: LaneRate, a_decade: int
) -> NDArray[np.float64]:  # fmt: skip
    """Return 0 and rates that span those of an environment, evenly on a log axis."""
    found = [lane_rate.at(conditions) for conditions in environment.conditions]
    highest = max(found)
    if highest == 0:
        return np.array([0.0, NO_RATE])
    lowest = max(min(rate for rate in found if rate > 0), highest / DECADES)
    return log_rates(min(lowest, highest / 10), highest, a_decade)


def dead_shares_of(environment: Environment, count: int) -> list[float]:
    """Return shares of dead lanes from 0 to an environment's largest; only 0 if it has none."""
    largest = max(conditions.dead_share for conditions in environment.conditions)
    return [0.0] if largest == 0 else np.linspace(0, largest, max(count, 2)).tolist()


def _identity(engine: Engine, rates: NDArray[np.float64], dead: list[float]) -> str:
    """Return a hash of all that a surface depends on."""
    pixels = sha256()
    for block in pixel_bytes(engine.images):
        pixels.update(block)
    pixels.update(engine.labels.numpy().tobytes())
    parts = (
        engine.network.identity, pixels.hexdigest(), engine.calibration,
        engine.grid.points[0].run.machine.config.model_dump_json(),
        [point.split.identity for point in engine.grid.points],
        engine.scenario.faults.site, engine.scenario.faults.effect, rates.tolist(), dead,
        engine.scenario.surface.inferences, engine.seed,
        nce_sim.__version__, DRAWS, torch.__version__, np.__version__,
    )  # fmt: skip
    return sha256(repr(parts).encode()).hexdigest()

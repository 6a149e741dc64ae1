"""Small parts of run-time missions: a grid that is simulated once, environments, answers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from hardware import Chain, conv, fused, linear, machine
from numpy.typing import NDArray

from nce_sim.config.voltage import load_voltage
from nce_sim.resilience.split import Split, neuron_split
from nce_sim.runtime.answers import Answer, Asked
from nce_sim.runtime.conditions import Conditions
from nce_sim.runtime.grid import Grid, build_grid
from nce_sim.runtime.observations import Estimate, Observation
from nce_sim.runtime.policies.context import PolicyContext

FRACTIONS = (0.0, 0.4, 0.8, 1.0)

NETWORK = Chain(
    (conv("one", inputs=(2, 6, 6), channels=6, bias=True), linear("two", "one", 216, 8))
)


class Ranked:
    """A ranking of some network's neurons in an order of chance."""

    def __init__(self, network: Chain = NETWORK, seed: int = 1) -> None:
        shapes = {layer.name: layer.out_shape for layer in network.layers if layer.has_neurons}
        sizes = [int(np.prod(shape)) for shape in shapes.values()]
        order = np.random.default_rng(seed).permutation(sum(sizes)).astype(np.int32)
        parts = np.split(order, np.cumsum(sizes)[:-1])
        self.places: dict[str, NDArray[np.int32]] = {
            name: part.reshape(shape)
            for (name, shape), part in zip(shapes.items(), parts, strict=True)
        }

    def split(self, unprotected_fraction: float, granularity: str = "neuron") -> Split:
        assert granularity == "neuron"
        return neuron_split(self.places, unprotected_fraction)


@cache
def small_grid() -> Grid:
    """Four splits of a small network on a machine with protected lanes three times as slow, whose
    unprotected domain may have another supply.
    """
    hardware = machine(
        protected__array__scheme="temporal_tmr", voltage="28nm-near-threshold", clock_mhz=100
    )
    table = load_voltage("28nm-near-threshold")
    return build_grid(NETWORK, hardware.model_copy(update={"voltage": table}), Ranked(), FRACTIONS)


@cache
def fused_grid() -> Grid:
    return build_grid(NETWORK, fused(), Ranked(), FRACTIONS)


@dataclass(frozen=True)
class Steps:
    """An environment of steps: conditions, each from its time in seconds on."""

    steps: tuple[tuple[float, Conditions], ...] = ((0.0, Conditions()),)

    def at(self, seconds: float) -> Conditions:
        return next(here for start, here in reversed(self.steps) if start <= seconds)


@dataclass
class Telling:
    """Answers by a function of what is asked; remembers which requests it answered, when."""

    tell: Callable[[Asked], Answer] = lambda asked: Answer(True, True, 10, 0)
    asked: list[Asked] = field(default_factory=list)

    def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        return self.tell(asked)


class Counting:
    """A monitor of the last inference."""

    def __init__(self) -> None:
        self.last = Estimate(0.0, 0.0, 1.0, 0, 0)

    def observe(self, answer: Answer, point: int) -> None:
        share = answer.mismatches / answer.checked if answer.checked else 0.0
        self.last = Estimate(share, share, 1.0, answer.checked, point)

    def estimate(self) -> Estimate:
        return self.last


@dataclass
class Choosing:
    """A policy by a function."""

    choose: Callable[[Observation], int]

    def decide(self, seen: Observation) -> int:
        return self.choose(seen)


class Falling:
    """A surface: accuracy falls with rate times unprotected fraction, mismatches are the rate."""

    def rate_of(self, mismatches_per_check: float, point: int) -> float:
        return 100 * mismatches_per_check

    def accuracy(self, point: int, rate: float) -> float:
        return max(0.0, 0.9 - 0.1 * rate * FRACTIONS[point])


def falling(point: int, conditions: Conditions) -> float:
    return Falling().accuracy(point, conditions.rate_factor)


def context(**changes: object) -> PolicyContext:
    given = {"grid": small_grid(), "quality_target": 0.8, "deadline_cycles": 50_000,
             "surface": Falling(), "true_accuracy": falling, **changes}  # fmt: skip
    return PolicyContext(**given)  # type: ignore[arg-type]


def seen(**changes: object) -> Observation:
    given = {"cycle": 1000, "point": 0, "estimate": Estimate(0.0, 0.0, 1.0, 10, 0), "queue": 0,
             "slack_cycles": None, "power_mw": 1.0, "power_budget_mw": None,
             "temperature_c": None, "supply_v": None, **changes}  # fmt: skip
    return Observation(**given)  # type: ignore[arg-type]

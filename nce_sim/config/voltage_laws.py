"""The parts of a voltage table: failing SRAM cells and timing errors of lanes."""

from collections.abc import Sequence
from functools import partial
from math import isclose
from typing import Literal, NamedTuple, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from nce_sim.config.loader import FieldError, Strict
from nce_sim.config.technology import Figure
from nce_sim.config.voltage_curves import (
    NEVER,
    Range,
    bit_failure_probability,
    delay_ratio,
    extremes,
    interpolate,
    late_probability,
)
from nce_sim.errors import InputError

Direction = Literal["one_to_zero", "both"]
"""Which bits a failing cell flips: only stored ones, or also stored zeros."""

NS_PER_US = 1000


class Limits(NamedTuple):
    """The voltages that a part of a table covers, and why it ends there."""

    low_v: float
    high_v: float
    why_low: str
    why_high: str


class PositiveFigure(Figure):
    """A figure that is above 0 throughout its range."""

    low: PositiveFloat


class Point(Strict):
    """A probability at one voltage."""

    voltage_v: PositiveFloat
    probability: float = Field(gt=0, lt=1)
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.probability <= self.high:
            raise FieldError(
                ("probability",),
                f"low <= probability <= high fails: {self.low}, {self.probability}, {self.high}",
            )
        return self


class MeasuredPoints(Strict):
    """Probabilities at some voltages, interpolated in the probit domain between them."""

    rows: tuple[Point, ...] = Field(strict=False, description="by rising voltage; at least two")
    none_seen_above: bool = Field(
        description="whether no failure was seen above the last point: then none is taken to "
        "happen there, up to the nominal voltage, and that point's high end bounds it"
    )
    source: str = Field(min_length=1)
    assumption: bool = False

    @model_validator(mode="after")
    def _monotone(self) -> Self:
        if len(self.rows) < 2:
            raise FieldError(("rows",), f"at least 2 points are needed, found {len(self.rows)}")
        for index in range(1, len(self.rows)):
            before, here = self.rows[index - 1], self.rows[index]
            if here.voltage_v <= before.voltage_v:
                raise FieldError(
                    ("rows", index, "voltage_v"),
                    f"is {here.voltage_v:g} after {before.voltage_v:g}: voltages must rise",
                )
            for name in ("probability", "low", "high"):
                if getattr(here, name) > getattr(before, name):
                    raise FieldError(
                        ("rows", index, name),
                        f"is {getattr(here, name):g} after {getattr(before, name):g}: what fails "
                        "at one voltage fails at every lower one, so it must not rise",
                    )
        return self

    def limits(self, nominal_v: float) -> Limits:
        """Return the voltages that are covered."""
        last_v = nominal_v if self.none_seen_above else self.rows[-1].voltage_v
        ends = "the points end there"
        return Limits(self.rows[0].voltage_v, last_v, ends, ends)

    def probability(self, voltage_v: float) -> Range:
        """Return the probability at a voltage within the limits."""
        if voltage_v > self.rows[-1].voltage_v:
            return Range(0.0, 0.0, self.rows[-1].high)
        low, best, high = (
            interpolate(voltage_v, [(row.voltage_v, getattr(row, name)) for row in self.rows])
            for name in ("low", "probability", "high")
        )
        return Range(low, best, high)

    def sentence(self, voltage_v: float) -> str:
        """Say where the figures at a voltage come from."""
        first_v, last_v = self.rows[0].voltage_v, self.rows[-1].voltage_v
        text = (
            f"{len(self.rows)} {'assumed' if self.assumption else 'measured'} points from "
            f"{first_v:g} to {last_v:g} V, interpolated ({self.source})"
        )
        if voltage_v > last_v:
            text += f"; above {last_v:g} V none was seen, and the last point's high end is a bound"
        return text


class CellCurve(Strict):
    """Cells whose own failing voltages are normal: p = Phi((a - V/Vmin) / b)."""

    a: PositiveFigure = Field(description="mean failing voltage of a cell, in units of Vmin")
    b: PositiveFigure = Field(description="its deviation, in units of Vmin")
    vmin_v: PositiveFigure = Field(description="voltage at which no measured cell failed")
    lowest_ratio: PositiveFloat = Field(description="lowest V/Vmin that was measured")
    highest_ratio: PositiveFloat = Field(description="V/Vmin from which on no cell failed")
    cells: PositiveInt = Field(description="cells that were measured")
    measured_in: str = Field(min_length=1, description="where, and how it is carried over to here")

    def limits(self, nominal_v: float) -> Limits:
        """Return the voltages at which even the highest Vmin keeps to the measured curve."""
        why = (
            f"the curve was measured down to V/Vmin = {self.lowest_ratio:g}, "
            f"and vmin_v may be {self.vmin_v.high:g} V"
        )
        low_v = self.lowest_ratio * self.vmin_v.high
        return Limits(low_v, nominal_v, why, "it is the nominal voltage")

    def probability(self, voltage_v: float) -> Range:
        """Return the probability at a voltage within the limits."""
        return _extremes(partial(bit_failure_probability, voltage_v), (self.a, self.b, self.vmin_v))

    def sentence(self, voltage_v: float) -> str:
        """Say where the figures at a voltage come from."""
        text = (
            f"{self.measured_in}, p = Phi((a - V/Vmin) / b), a = {_cited(self.a)}, "
            f"b = {_cited(self.b)}, Vmin = {_cited(self.vmin_v, ' V')}"
        )
        if voltage_v > self.highest_ratio * self.vmin_v.low:
            text += (
                f"; at V/Vmin = {self.highest_ratio:g} none of {self.cells:,} cells failed, and "
                "the curve is assumed to go on above"
            )
        return text


class SramFailures(Strict):
    """Failing SRAM cells: by one of `curve`, `points` and `own_rail`."""

    curve: CellCurve | None = None
    points: MeasuredPoints | None = None
    own_rail: str | None = Field(default=None, min_length=1, description="why voltage spares them")
    direction: Direction
    direction_source: str = Field(min_length=1)

    @model_validator(mode="after")
    def _one(self) -> Self:
        _check_one_of(self, ("curve", "points", "own_rail"))
        return self

    @property
    def law(self) -> CellCurve | MeasuredPoints | None:
        """The curve or the points; None if the cells have a supply of their own."""
        return self.curve or self.points

    def probability(self, voltage_v: float) -> Range:
        """Return the probability that a cell fails."""
        return NEVER if self.law is None else self.law.probability(voltage_v)

    def sentences(self, voltage_v: float) -> tuple[str, ...]:
        """Say what is measured and assumed."""
        if self.law is None:
            return (f"SRAM cells never fail: {self.own_rail}.",)
        return (
            f"SRAM cells fail with p = {shown(self.probability(voltage_v))}: "
            f"{self.law.sentence(voltage_v)}.",
            f"Failing cells flip {DIRECTION_NAMES[self.direction]}: {self.direction_source}.",
        )


DIRECTION_NAMES: dict[Direction, str] = {
    "one_to_zero": "only stored ones",
    "both": "stored ones and zeros alike",
}


class PathDelay(Strict):
    """The path that a lane's cycle exercises: of normal delay, which voltage stretches."""

    mean_ns: PositiveFigure = Field(description="mean over cycles, at nominal voltage")
    sigma_ns: PositiveFigure = Field(description="deviation over cycles, at nominal voltage")
    threshold_v: PositiveFigure
    alpha: PositiveFigure = Field(description="1 (velocity saturation) to 2 (long channel)")
    lowest_voltage_v: PositiveFloat = Field(description="where the law is given up")

    @model_validator(mode="after")
    def _holds(self) -> Self:
        if self.alpha.low < 1 or self.alpha.high > 2:
            raise FieldError(
                ("alpha",), f"is {self.alpha.low:g} to {self.alpha.high:g}: it must be from 1 to 2"
            )
        if self.lowest_voltage_v <= self.threshold_v.high:
            raise FieldError(
                ("lowest_voltage_v",),
                f"is {self.lowest_voltage_v:g}: it must be above threshold_v throughout its range, "
                f"{self.threshold_v.high:g}",
            )
        return self

    @property
    def figures(self) -> tuple[Figure, ...]:
        """What the law takes, in the order of `_late` and `_clock`."""
        return self.mean_ns, self.sigma_ns, self.threshold_v, self.alpha

    def limits(self, nominal_v: float) -> Limits:
        """Return the voltages at which the law holds."""
        why = "nearer to the threshold the alpha-power law fails"
        return Limits(self.lowest_voltage_v, nominal_v, why, "it is the nominal voltage")

    def probability(self, voltage_v: float, clock_mhz: float, nominal_v: float) -> Range:
        """Return the probability that a cycle's path takes longer than the clock."""
        return _extremes(partial(_late, voltage_v, clock_mhz, nominal_v), self.figures)

    def clock_limit_mhz(self, voltage_v: float, sigmas: float, nominal_v: float) -> Range:
        """Return the clock at which the mean path and `sigmas` deviations just fit."""
        return _extremes(partial(_clock, voltage_v, sigmas, nominal_v), self.figures)

    def sentence(self) -> str:
        """Say what is assumed."""
        return (
            "each cycle exercises a path whose delay at nominal voltage is normal, mean "
            f"{_cited(self.mean_ns, ' ns')}, deviation {_cited(self.sigma_ns, ' ns')}, and scales "
            f"as V / (V - Vth)^alpha, Vth = {_cited(self.threshold_v, ' V')}, "
            f"alpha = {_cited(self.alpha)}"
        )


class LanePoints(MeasuredPoints):
    """Measured rates of timing errors, which hold for one clock."""

    clock_mhz: PositiveFloat


class LaneErrors(Strict):
    """Timing errors of a lane: by one of `path_delay`, `points` and `own_rail`."""

    path_delay: PathDelay | None = None
    points: LanePoints | None = None
    own_rail: str | None = Field(default=None, min_length=1, description="why voltage spares them")

    @model_validator(mode="after")
    def _one(self) -> Self:
        _check_one_of(self, ("path_delay", "points", "own_rail"))
        return self

    @property
    def law(self) -> PathDelay | LanePoints | None:
        """The law or the points; None if the lanes have a supply of their own."""
        return self.path_delay or self.points

    def rate_per_cycle(self, voltage_v: float, clock_mhz: float, nominal_v: float) -> Range:
        """Return the probability that a lane errs in a cycle.

        Raises InputError if points were measured at another clock.
        """
        if self.path_delay is not None:
            return self.path_delay.probability(voltage_v, clock_mhz, nominal_v)
        if self.points is None:
            return NEVER
        if not isclose(clock_mhz, self.points.clock_mhz):
            raise InputError(
                f"clock_mhz is {clock_mhz:g}: the voltage table's lanes.points hold for "
                f"{self.points.clock_mhz:g} MHz only"
            )
        return self.points.probability(voltage_v)

    def sentence(self, voltage_v: float, rate: Range) -> str:
        """Say what is measured and assumed."""
        if self.path_delay is not None:
            law = self.path_delay.sentence()
        elif self.points is not None:
            law = self.points.sentence(voltage_v)
        else:
            return f"Lanes make no timing errors: {self.own_rail}."
        return f"A lane errs in a cycle with p = {shown(rate)}: {law}."


def _late(
    voltage_v: float, clock_mhz: float, nominal_v: float,
    mean_ns: float, sigma_ns: float, threshold_v: float, alpha: float,
) -> float:  # fmt: skip
    ratio = delay_ratio(voltage_v, nominal_v, threshold_v, alpha)
    return late_probability(NS_PER_US / clock_mhz, mean_ns, sigma_ns, ratio)


def _clock(
    voltage_v: float, sigmas: float, nominal_v: float,
    mean_ns: float, sigma_ns: float, threshold_v: float, alpha: float,
) -> float:  # fmt: skip
    ratio = delay_ratio(voltage_v, nominal_v, threshold_v, alpha)
    return NS_PER_US / (ratio * (mean_ns + sigmas * sigma_ns))


def _extremes(curve: partial[float], figures: Sequence[Figure]) -> Range:
    best = [figure.value for figure in figures]
    return extremes(curve, best, [(figure.low, figure.high) for figure in figures])


def _check_one_of(record: Strict, names: tuple[str, ...]) -> None:
    given = [name for name in names if getattr(record, name) is not None]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise FieldError(
            tuple(given[1:2]), f"exactly one of {', '.join(names)} is allowed, found {found}"
        )


def shown(value: Range) -> str:
    """Return a figure with its range for people."""
    return f"{value.best:.3g} [{value.low:.3g}, {value.high:.3g}]"


def _cited(figure: Figure, unit: str = "") -> str:
    kind = "assumed" if figure.assumption else "from"
    return f"{figure.value:g}{unit} [{figure.low:g}, {figure.high:g}] ({kind}: {figure.source})"

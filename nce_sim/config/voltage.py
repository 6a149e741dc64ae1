"""The schema of a voltage table in `hw_configs/voltage/`, and what fails at a supply voltage.

A table gives the probability that an SRAM cell fails and the rate of timing errors of a lane, each
by a curve, by measured points, or not at all because that part has a supply of its own. Nothing is
taken beyond what a table covers: `VoltageTable.at` refuses such voltages.
"""

from dataclasses import dataclass
from math import isfinite
from numbers import Real
from pathlib import Path
from typing import Self

from pydantic import PositiveFloat, model_validator

from nce_sim.config.bundle import bundled, unknown_name
from nce_sim.config.loader import FieldError, Strict, load_yaml
from nce_sim.config.voltage_curves import Range
from nce_sim.config.voltage_laws import Direction, LaneErrors, Limits, SramFailures, shown
from nce_sim.errors import InputError


@dataclass(frozen=True)
class OperatingPoint:
    """What fails at one supply voltage and clock.

    `bit_failure_probability` is that of one cell, once for all its accesses: draw one uniform
    number u for each cell of a chip; the cell fails if u < p. With the same u at every voltage the
    failures nest, as they do in silicon. `lane_error_rate_per_cycle` is the probability that a
    lane's cycle ends in a timing error. `dynamic_energy_scale` is (V/Vnominal)^2.
    `assumptions` are sentences that a run at this voltage has to print.
    """

    voltage_v: float
    clock_mhz: float
    bit_failure_probability: Range
    lane_error_rate_per_cycle: Range
    direction: Direction
    dynamic_energy_scale: float
    assumptions: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.voltage_v:g} V, {self.clock_mhz:g} MHz: SRAM bit fails with p = "
            f"{shown(self.bit_failure_probability)}, lane errs in a cycle with p = "
            f"{shown(self.lane_error_rate_per_cycle)}"
        )


class VoltageTable(Strict):
    """What fails at which supply voltage."""

    name: str
    description: str
    nominal_voltage_v: PositiveFloat
    sram: SramFailures
    lanes: LaneErrors

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.sram.law is None and self.lanes.law is None:
            raise FieldError(("lanes", "own_rail"), "sram has it too: then voltage sets nothing")
        for part, points in (("sram", self.sram.points), ("lanes", self.lanes.points)):
            for index, row in enumerate(points.rows if points else ()):
                if row.voltage_v > self.nominal_voltage_v:
                    raise FieldError(
                        (part, "points", "rows", index, "voltage_v"),
                        f"is {row.voltage_v:g}: it must be at most nominal_voltage_v, "
                        f"{self.nominal_voltage_v:g}",
                    )
        limits = self.limits
        if limits.low_v >= limits.high_v:
            raise FieldError(
                ("nominal_voltage_v",),
                f"no voltage is covered: at least {limits.low_v:g} V ({limits.why_low}) and at "
                f"most {limits.high_v:g} V ({limits.why_high})",
            )
        return self

    @property
    def limits(self) -> Limits:
        """The voltages that all parts of the table cover."""
        parts = {"sram": self.sram.law, "lanes": self.lanes.law}
        bounds = {
            name: law.limits(self.nominal_voltage_v)
            for name, law in parts.items()
            if law is not None
        }
        low = max(bounds, key=lambda name: bounds[name].low_v)
        high = min(bounds, key=lambda name: bounds[name].high_v)
        return Limits(
            bounds[low].low_v,
            bounds[high].high_v,
            f"{low}: {bounds[low].why_low}",
            f"{high}: {bounds[high].why_high}",
        )

    def at(self, voltage_v: float, clock_mhz: float) -> OperatingPoint:
        """Return what fails at `voltage_v` (V) and `clock_mhz` (MHz).

        Raises InputError if either is no positive number, if the table does not cover the voltage,
        and if its lanes were measured at another clock.
        """
        self._check(voltage_v)
        _check_positive("clock_mhz", clock_mhz)
        rate = self.lanes.rate_per_cycle(voltage_v, clock_mhz, self.nominal_voltage_v)
        scale = (voltage_v / self.nominal_voltage_v) ** 2
        return OperatingPoint(
            voltage_v=float(voltage_v),
            clock_mhz=float(clock_mhz),
            bit_failure_probability=self.sram.probability(voltage_v),
            lane_error_rate_per_cycle=rate,
            direction=self.sram.direction,
            dynamic_energy_scale=scale,
            assumptions=(
                f"Supply {voltage_v:g} V of nominal {self.nominal_voltage_v:g} V, "
                f"clock {clock_mhz:g} MHz: voltage table '{self.name}'.",
                *self.sram.sentences(voltage_v),
                self.lanes.sentence(voltage_v, rate),
                "Square brackets are ranges with every figure at its worst end, not intervals.",
                f"Dynamic energy on this supply is {scale:.3g} of nominal, (V/Vnominal)^2; "
                "access times of buffers are assumed to stay within the clock.",
            ),
        )

    def clock_limit_mhz(self, voltage_v: float, sigmas: float = 5.0) -> Range:
        """Return the clock at which the mean path and `sigmas` deviations just fit.

        Raises InputError if the table does not cover the voltage or has no `lanes.path_delay`.
        """
        self._check(voltage_v)
        path = self.lanes.path_delay
        if path is None:
            raise InputError(
                f"voltage table '{self.name}' has no lanes.path_delay: it sets no clock limit"
            )
        return path.clock_limit_mhz(voltage_v, sigmas, self.nominal_voltage_v)

    def slowdown(self, voltage_v: float) -> float:
        """Return a path's delay relative to that at nominal voltage.

        Raises InputError if the table does not cover the voltage or has no `lanes.path_delay`.
        """
        slowest = self.clock_limit_mhz(self.nominal_voltage_v).best
        return slowest / self.clock_limit_mhz(voltage_v).best

    def _check(self, voltage_v: float) -> None:
        _check_positive("voltage_v", voltage_v)
        limits = self.limits
        if not limits.low_v <= voltage_v <= limits.high_v:
            why = limits.why_low if voltage_v < limits.low_v else limits.why_high
            raise InputError(
                f"voltage_v is {voltage_v:g}: voltage table '{self.name}' allows "
                f"{limits.low_v:g} to {limits.high_v:g} V ({why})"
            )


def load_voltage(name_or_path: str | Path, beside: Path = Path()) -> VoltageTable:
    """Load a bundled voltage table by name, or any table by the path of its YAML file.

    A relative path starts at the folder `beside`.

    Raises InputError for an unknown name and for a file that does not fit the schema.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = bundled("hw_configs") / "voltage" / f"{name_or_path}.yaml"
        if not path.is_file():
            raise unknown_name("voltage table", str(name_or_path), list_voltages())
        return load_yaml(path, VoltageTable)
    return load_yaml(beside / path, VoltageTable)


def list_voltages() -> list[str]:
    """Return the names of the bundled voltage tables."""
    return sorted(path.stem for path in (bundled("hw_configs") / "voltage").glob("*.yaml"))


def _check_positive(field: str, value: float) -> None:
    number = isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)
    if not number or value <= 0:
        raise InputError(f"{field} must be a number above 0, not {value!r}")

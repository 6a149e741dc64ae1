"""Figures of one node from those of another: named rules, and how each unit follows them.

A field's name ends in its unit, and the unit decides which factor of a rule it takes: energies,
areas, times and leakage scale; shares, ratios and external memories do not.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import exp, log
from typing import Any, NamedTuple


class Point(NamedTuple):
    """A node and its supply voltage."""

    node_nm: float
    voltage_v: float


@dataclass(frozen=True)
class Factors:
    """What a figure is multiplied by, for each quantity."""

    energy: float
    area: float
    delay: float
    leakage: float
    wire_energy: float


Refusal = tuple[str, str]
"""The field that a rule does not accept, and what it does."""


@dataclass(frozen=True)
class Rule:
    """A way to scale, and how far to trust it.

    `error` is relative: a range is divided by 1 + error at its low end, multiplied at its high
    one. `factors` takes the point a figure holds for and the one it is wanted for.
    """

    error: float
    factors: Callable[[Point, Point], Factors]
    refusal: Callable[[Point], Refusal | None]


class _Fit(NamedTuple):
    """What Stillmaker and Baas give for a node; `area` is relative to 45 nm.

    The delay is a polynomial of third order in the voltage and the energy one of second order,
    highest power first.
    """

    delay: tuple[float, float, float, float]
    energy: tuple[float, float, float]
    area: float
    lowest_v: float
    highest_v: float


STILLMAKER_BAAS: dict[float, _Fit] = {
    180: _Fit((0, 97.09, -356.7, 406.5), (0, 24.64, -17.98), 19, 1.0, 1.8),
    130: _Fit((-76.65, 334.9, -493.4, 275.8), (7.171, -6.709, 2.904), 6.4, 0.7, 1.3),
    90: _Fit((-60.34, 262.5, -384.2, 210.9), (4.762, -4.781, 2.092), 2.8, 0.7, 1.3),
    65: _Fit((-53.3, 230.4, -333.9, 178.6), (3.755, -4.398, 1.975), 1.5, 0.7, 1.3),
    45: _Fit((-501.6, 1567, -1619, 566.1), (1.018, -0.3107, 0.1539), 1, 0.6, 1.0),
    32: _Fit((-1047, 2982, -2797, 873.5), (0.8367, -0.4341, 0.1701), 0.46, 0.6, 0.9),
    20: _Fit((0, 34.63, -66.37, 41.15), (0.373, -0.1582, 0.04104), 0.21, 0.5, 0.95),
    16: _Fit((0, 24.8, -47.52, 28.87), (0.2958, -0.1241, 0.03024), 0.19, 0.5, 0.95),
    14: _Fit((-40.66, 109.2, -100.6, 35.92), (0.2363, -0.09675, 0.02239), 0.17, 0.5, 0.95),
    10: _Fit((-34.95, 93.65, -85.99, 30.4), (0.2068, -0.09311, 0.02375), 0.1, 0.5, 0.95),
    7: _Fit((-28.58, 76.6, -70.26, 24.69), (0.1776, -0.09097, 0.02447), 0.059, 0.5, 0.95),
}
"""By node in nm; below 65 nm the columns for high performance. Not read
from the paper but from a transcription (nodeScale, UCLA NanoCAD). A second one agrees on areas and
on energies but at 45 and 32 nm, the authors' correction on the energies of 65 and 32 nm; the
delays were found once.

Those for low power are left out: from 32 to 16 nm they let the delay fall to a fifth. The limits
of the voltage are this project's: within them the fitted energy rises with the voltage and the
delay falls, but for a rise of up to a tenth at the upper end.
"""


def stillmaker_baas_2017(start: Point, end: Point) -> Factors:
    """Return the ratios of delay, energy and area that circuit simulations gave.

    Source: A. Stillmaker and B. Baas, "Scaling equations for the accurate prediction of CMOS
    device performance from 180 nm to 7 nm", Integration 58 (2017): polynomials in the voltage
    with the coefficients of `STILLMAKER_BAAS`, and a table of areas. A node between two of theirs
    takes the geometric mean weighted by the logarithm of its length, which is this project's
    addition.

    Error: the paper states R2 > 0.95 of the fits, and nothing about other circuits. Steps from 65
    to 45, 32 and 22 nm of a whole 64 KiB SRAM of high-performance cells (CACTI 7) differ from the
    rule by up to 1.28 in energy and 1.39 in area, hence 0.4.

    The paper has no leakage. It is taken to follow the energy of a gate, as other estimators do;
    the same banks differ from that by up to 1.7, those of low-standby-power cells by up to 8.5.
    Wires keep their capacitance a length, so that their energy follows the voltage only.
    """
    energy = _fitted(end, _energy) / _fitted(start, _energy)
    return Factors(
        energy=energy,
        area=_fitted(end, _area) / _fitted(start, _area),
        delay=_fitted(end, _delay) / _fitted(start, _delay),
        leakage=energy,
        wire_energy=(end.voltage_v / start.voltage_v) ** 2,
    )


def dennard_1974(start: Point, end: Point) -> Factors:
    """Return the classical ratios, by length and voltage alone.

    Source: R. Dennard et al., "Design of ion-implanted MOSFET's with very small physical
    dimensions", IEEE JSSC 9 (1974), with a voltage that need not shrink with the length:
    energy L V^2, area L^2, delay L, leakage L V (width times voltage, at equal current a width).

    Error: 0.4, as it follows the same SRAM banks as `stillmaker_baas_2017` within 1.39.
    """
    length = end.node_nm / start.node_nm
    voltage = end.voltage_v / start.voltage_v
    return Factors(length * voltage**2, length**2, length, length * voltage, voltage**2)


def _energy(fit: _Fit, voltage_v: float) -> float:
    second, first, constant = fit.energy
    return (second * voltage_v + first) * voltage_v + constant


def _delay(fit: _Fit, voltage_v: float) -> float:
    third, second, first, constant = fit.delay
    return ((third * voltage_v + second) * voltage_v + first) * voltage_v + constant


def _area(fit: _Fit, _: float) -> float:
    return fit.area


def _neighbours(node_nm: float) -> tuple[float, float]:
    """Return the nodes of the rule around this one, or itself twice."""
    return (
        min(node for node in STILLMAKER_BAAS if node >= node_nm),
        max(node for node in STILLMAKER_BAAS if node <= node_nm),
    )


def _fitted(point: Point, quantity: Callable[[_Fit, float], float]) -> float:
    larger, smaller = _neighbours(point.node_nm)
    first = quantity(STILLMAKER_BAAS[larger], point.voltage_v)
    if larger == smaller:
        return first
    second = quantity(STILLMAKER_BAAS[smaller], point.voltage_v)
    share = log(larger / point.node_nm) / log(larger / smaller)
    return exp((1 - share) * log(first) + share * log(second))


def _stillmaker_baas_refusal(point: Point) -> Refusal | None:
    low, high = min(STILLMAKER_BAAS), max(STILLMAKER_BAAS)
    if not low <= point.node_nm <= high:
        return "node_nm", f"the rule holds from {low} to {high} nm (found {point.node_nm:g})"
    fits = [STILLMAKER_BAAS[node] for node in _neighbours(point.node_nm)]
    lowest, highest = max(fit.lowest_v for fit in fits), min(fit.highest_v for fit in fits)
    if not lowest <= point.voltage_v <= highest:
        return "voltage_v", (
            f"at {point.node_nm:g} nm the rule holds from {lowest} to {highest} V "
            f"(found {point.voltage_v:g})"
        )
    return None


def _accepts_every(_: Point) -> None:
    return None


RULES: dict[str, Rule] = {
    "stillmaker-baas-2017": Rule(0.4, stillmaker_baas_2017, _stillmaker_baas_refusal),
    "dennard-1974": Rule(0.4, dennard_1974, _accepts_every),
}

LEAKAGE_DOUBT = 3
"""Leakage is widened by this on top: no rule here follows the type of the cells."""

UNSCALED = {"memories"}
"""Parts that are bought, and do not change with the chip's node."""


class _Law(NamedTuple):
    """What a figure is multiplied by, and what its range is widened by."""

    factor: float
    widening: float


def scale_table(
    content: Mapping[str, Any], start: Point, end: Point, rule_name: str, error: float
) -> dict[str, Any]:
    """Return the content of a technology table, scaled from `start` to `end` by a rule.

    Scaling to the same point changes nothing but the sources. Values that the table gives
    without a range (rows of SRAM) are scaled, and the factors on them widened.
    """
    factors = RULES[rule_name].factors(start, end)
    laws = _laws(factors, 1 + error if start != end else 1)
    origin = f"{content['name']}, {rule_name}"
    return {
        name: part if name in UNSCALED else _scale(name, part, laws, origin)
        for name, part in content.items()
    }


def _laws(factors: Factors, widening: float) -> dict[str, _Law]:
    """Return the law of each ending of a name; of several endings that fit, the first counts."""
    leakage = _Law(factors.leakage, widening * (LEAKAGE_DOUBT if widening > 1 else 1))
    return {
        "_pj_per_byte_mm": _Law(factors.wire_energy, widening),
        "_pj_per_byte": _Law(factors.energy, widening),
        "_pj": _Law(factors.energy, widening),
        "_mw_per_mm2": _Law(factors.leakage / factors.area, leakage.widening),
        "_mw": leakage,
        "_per_mm2": _Law(1 / factors.area, widening),
        "_um2": _Law(factors.area, widening),
        "_mm2": _Law(factors.area, widening),
        "_ns": _Law(factors.delay, widening),
        "_per_mbit": _Law(1, widening),
        "energy_factor": _Law(1, widening),
        "area_factor": _Law(1, widening),
        "leakage_factor": _Law(1, leakage.widening),
    }


def _scale(name: str, part: Any, laws: Mapping[str, _Law], origin: str) -> Any:
    """Scale a part of a table and all that it holds."""
    law = next((law for ending, law in laws.items() if name.endswith(ending)), None)
    if isinstance(part, dict):
        if "source" in part and "value" in part:
            return _scale_figure(part, law, origin)
        return {key: _scale(str(key), inner, laws, origin) for key, inner in part.items()}
    if isinstance(part, list | tuple):
        return [_scale(name, inner, laws, origin) for inner in part]
    if law is not None and isinstance(part, float):
        return part * law.factor
    return f"{origin}: {part}" if name.endswith("source") else part


def _scale_figure(figure: Mapping[str, Any], law: _Law | None, origin: str) -> dict[str, Any]:
    if law is None:
        return {**figure, "source": f"{origin}, unchanged: {figure['source']}"}
    low, value, high = (figure[end] * law.factor for end in ("low", "value", "high"))
    return {
        "value": value,
        "low": low / law.widening,
        "high": high * law.widening,
        "source": f"{origin}, x {law.factor:.3g}: {figure['source']}",
        "assumption": True,
    }

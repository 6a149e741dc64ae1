"""What a domain's supply voltage and the temperature do to energy per action and to leakage."""

from dataclasses import dataclass
from itertools import pairwise
from math import exp, log

from nce_sim.config.machine import Machine
from nce_sim.config.technology import LeakageFigures


@dataclass(frozen=True)
class Supply:
    """Factors on the figures of a technology table, and the formulas they come from.

    `dynamic` is on the energy of every action, `leakage` on power while nothing happens; both hold
    what the regulator of a lowered supply loses. `is_lowered` tells whether the domain needs a
    supply, and level shifters, of its own.
    """

    dynamic: float
    leakage: float
    dynamic_formula: str
    leakage_formula: str
    figures: tuple[str, ...]
    is_lowered: bool


def supply_of(machine: Machine, domain: str | None) -> Supply:
    """Return the factors of a domain; those of what both domains share (None) are nominal.

    Dynamic energy goes with the square of the voltage. Leakage doubles with every `doubling_k` of
    temperature; with the voltage it follows the table's points, interpolated on its logarithm.
    """
    technology, config = machine.technology, machine.config
    nominal_v = technology.voltage_v
    supply_v = nominal_v if domain is None else machine.supply_v(domain)
    temperature_k = config.temperature_k or technology.temperature_k
    warmer_k = temperature_k - technology.temperature_k
    leakage = 2 ** (warmer_k / technology.leakage.doubling_k.value)
    warm = f" x 2^({warmer_k:g} K / leakage.doubling_k)" if warmer_k else ""
    figures = ("leakage.doubling_k",) if warmer_k else ()
    if supply_v == nominal_v:
        return Supply(1.0, leakage, "", warm, figures, is_lowered=False)
    ratio, efficiency = supply_v / nominal_v, technology.regulator_efficiency.value
    dynamic = ratio**2 / efficiency
    leakage *= leakage_at(technology.leakage, ratio) / efficiency
    lost = " / regulator_efficiency"
    return Supply(
        dynamic,
        leakage,
        f" x ({supply_v:g} V / {nominal_v:g} V)^2{lost}",
        f"{warm} x leakage.by_voltage at {supply_v:g} V{lost}",
        (*figures, "regulator_efficiency"),
        is_lowered=True,
    )


def leakage_at(figures: LeakageFigures, ratio: float) -> float:
    """Return leakage power at `ratio` of the nominal voltage, relative to that at nominal.

    Raises ValueError below the points of the table.
    """
    for above, below in pairwise(figures.by_voltage):
        if below.ratio <= ratio <= above.ratio:
            share = (above.ratio - ratio) / (above.ratio - below.ratio)
            return exp((1 - share) * log(above.factor) + share * log(below.factor))
    raise ValueError(f"no leakage is known at {ratio:g} of the nominal voltage")

"""Raw failure rates: what an element holds, times the technology's rates, by failure mode.

Rates are in FIT: failures in 1e9 hours. Each comes with both ends of its range, for which every
figure of the technology table, areas included, is taken at that end.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from nce_sim.config.machine import Machine
from nce_sim.config.technology import ENDS, Technology
from nce_sim.config.voltage_curves import Range
from nce_sim.cost.area import at_end
from nce_sim.errors import InputError
from nce_sim.safety.elements import Element, Usage, elements_of
from nce_sim.safety.ranges import product

FaultClass = Literal["transient", "permanent"]
TRANSIENT: FaultClass = "transient"
PERMANENT: FaultClass = "permanent"

BITS_PER_MBIT = 2**20


@dataclass(frozen=True)
class FailureMode:
    """One way in which an element fails: how often, and from which figures that follows.

    `amount` of Mbit or mm2 times `fit_each`, the technology's `figure`, is the rate.
    """

    element: Element
    fault_class: FaultClass
    mode: str
    amount: Range
    figure: str
    fit_each: Range
    rate_source: str

    @property
    def rate_fit(self) -> Range:
        """The rate, all figures at their low, best and high ends."""
        return product(self.amount, self.fit_each)


@dataclass(frozen=True)
class _Rate:
    """A rate at one end of the technology's ranges."""

    fault_class: FaultClass
    mode: str
    amount: float
    figure: str
    fit_each: float
    source: str


def failure_modes(machine: Machine, usage: Usage) -> tuple[FailureMode, ...]:
    """Return every failure mode of a machine at the nominal voltage of its technology.

    Raises InputError for a domain with a lower supply and for a fabric.
    """
    _check(machine)
    low, high = (_rates(at_end(machine, end), usage) for end in ENDS[1:])
    return tuple(
        FailureMode(
            element, rate.fault_class, rate.mode,
            Range(at_low.amount, rate.amount, at_high.amount), rate.figure,
            Range(at_low.fit_each, rate.fit_each, at_high.fit_each), rate.source,
        )
        for (element, rate), (_, at_low), (_, at_high) in zip(
            _rates(machine, usage), low, high, strict=True
        )
    )  # fmt: skip


def _check(machine: Machine) -> None:
    """Refuse machines whose failure rates the technology table does not give."""
    nominal_v = machine.technology.voltage_v
    for domain in machine.config.domains:
        supply_v = machine.supply_v(domain)
        if supply_v != nominal_v:
            raise InputError(
                f"{domain}.supply_v is {supply_v:g}: fault rates in FIT hold at the nominal "
                f"{nominal_v:g} V; cells and paths that fail below it are no rates over time but "
                f"belong to the chip: measure them with nce-sim inject and its supply"
            )
    if machine.config.fabric is not None:
        raise InputError(
            f"machine '{machine.config.name}' has a fabric, whose columns serve both domains: "
            f"failure rates are counted for machines with an array for each domain"
        )


def _rates(machine: Machine, usage: Usage) -> list[tuple[Element, _Rate]]:
    memory = machine.config.memory.kind
    return [
        (element, rate)
        for element in elements_of(machine, usage)
        for rate in _rates_of(element, machine.technology, memory)
    ]


def _rates_of(element: Element, technology: Technology, memory: str) -> Iterator[_Rate]:
    """Yield the rates of one element: upsets of its bits first, then what stays broken."""
    rates, hardened = technology.fault_rates, element.transient_factor
    factor = f" x {hardened:g} (hardened)" if hardened != 1 else ""
    if element.flip_flops:
        figure, fit = "flip_flop_upset_fit_per_mbit", rates.flip_flop_upset_fit_per_mbit.value
        amount = hardened * element.flip_flops / BITS_PER_MBIT
        formula = f"{element.flip_flops:,.0f} flip-flops x {figure}{factor}"
        yield _Rate(TRANSIENT, "upset", amount, figure, fit, formula)
        amount *= rates.logic_transient_share.value
        formula += " x logic_transient_share"
        yield _Rate(TRANSIENT, "pulse latched from gates", amount, figure, fit, formula)
    yield from _cells(element.sram_bits, "SRAM bits", "", {
        "sram_upset_fit_per_mbit": rates.sram_upset_fit_per_mbit.value,
        "sram_permanent_fit_per_mbit": rates.sram_permanent_fit_per_mbit.value,
    })  # fmt: skip
    figures = technology.memories[memory]
    yield from _cells(element.dram_bits, "bits in use", f"memories.{memory}.", {
        "upset_fit_per_mbit": figures.upset_fit_per_mbit.value,
        "permanent_fit_per_mbit": figures.permanent_fit_per_mbit.value,
    })  # fmt: skip
    if element.logic_mm2 and not element.sram_bits:
        figure, fit = "logic_permanent_fit_per_mm2", rates.logic_permanent_fit_per_mm2.value
        formula = f"{element.logic_mm2:.4g} mm2 x {figure}"
        yield _Rate(PERMANENT, "stuck", element.logic_mm2, figure, fit, formula)


def _cells(bits: float, unit: str, table: str, figures: dict[str, float]) -> Iterator[_Rate]:
    """Yield the upsets and the stuck cells of a memory; `figures` has one rate for each."""
    if not bits:
        return
    modes: tuple[tuple[FaultClass, str], ...] = ((TRANSIENT, "upset"), (PERMANENT, "stuck cell"))
    for (fault_class, mode), (name, fit_per_mbit) in zip(modes, figures.items(), strict=True):
        formula = f"{bits:,.0f} {unit} x {table}{name}"
        yield _Rate(fault_class, mode, bits / BITS_PER_MBIT, table + name, fit_per_mbit, formula)

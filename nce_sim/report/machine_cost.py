"""What a machine alone costs: rows for terminal, page and JSON, each figure with its source."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nce_sim.config.figures import figures_of
from nce_sim.config.machine import Machine
from nce_sim.cost.actions import Action, actions_of
from nce_sim.cost.area import Area, area
from nce_sim.cost.peak import Power, peak_tops, power_by_component

Row = dict[str, str | float]


@dataclass(frozen=True)
class MachineCost:
    """A machine with everything that follows from its configuration and technology table alone."""

    machine: Machine
    area: Area
    actions: tuple[Action, ...]
    power: dict[str, Power]
    peak_tops: float

    @staticmethod
    def of(machine: Machine) -> "MachineCost":
        """Compute it."""
        chip = area(machine)
        return MachineCost(
            machine, chip, actions_of(machine, chip), power_by_component(machine, chip),
            peak_tops(machine),
        )  # fmt: skip

    @property
    def name(self) -> str:
        """Name of the machine."""
        return self.machine.config.name

    @property
    def idle_mw(self) -> float:
        """Power while nothing happens: leakage, and the memory's background power."""
        return sum(power.idle_mw for power in self.power.values())

    @property
    def peak_mw(self) -> float:
        """Power while all lanes multiply."""
        return sum(power.peak_mw for power in self.power.values())

    @cached_property
    def figures(self) -> dict[str, Row]:
        """The figures of the technology table that the machine's parts and actions use."""
        used: Iterable[Any] = (*self.area.parts, *self.actions)
        names = {path for each in used for path in each.figures} | {"wiring_factor"}
        return {
            path: {
                "figure": path, "value": figure.value, "low": figure.low, "high": figure.high,
                "assumption": "yes" if figure.assumption else "", "source": figure.source,
            }
            for path, figure in figures_of(self.machine.technology).items()
            if path in names
        }  # fmt: skip


def area_rows(cost: MachineCost) -> list[Row]:
    """Return every part with its area and where it comes from."""
    return [
        {
            "component": part.label,
            "part": part.name,
            "count": part.count,
            "um2_each": part.area_um2,
            "mm2": cost.area.of(part),
            "formula": part.formula,
        }
        for part in cost.area.parts
    ]


def action_rows(cost: MachineCost) -> list[Row]:
    """Return every action with its energy and where it comes from."""
    return [
        {
            "component": action.label,
            "action": action.name,
            "unit": action.unit,
            "pj_each": action.energy_pj,
            "formula": action.formula,
        }
        for action in cost.actions
    ]


def component_rows(cost: MachineCost) -> list[Row]:
    """Return area and power by component, then their sums."""
    names = dict.fromkeys([*cost.area.by_component_mm2, *cost.power])
    nothing = Power(0.0, 0.0)
    rows: list[Row] = [
        {
            "component": name,
            "mm2": cost.area.by_component_mm2.get(name, 0.0),
            "idle_mw": cost.power.get(name, nothing).idle_mw,
            "peak_mw": cost.power.get(name, nothing).peak_mw,
        }
        for name in names
    ]
    total: Row = {
        "component": "total", "mm2": cost.area.total_mm2, "idle_mw": cost.idle_mw,
        "peak_mw": cost.peak_mw,
    }  # fmt: skip
    return [*rows, total]


def headline(cost: MachineCost) -> str:
    """Return area, peak throughput and power in a sentence."""
    config = cost.machine.config
    lanes = " + ".join(
        f"{array.lanes} {'PPE' if name == 'protected' else 'PE'} lanes ({array.scheme})"
        for name, array in config.arrays.items()
    )
    chip = cost.area
    return (
        f"{cost.name}: {lanes}, {config.number_format}, {config.clock_mhz:g} MHz, technology "
        f"{cost.machine.technology.name}: {chip.total_mm2:.2f} mm2 "
        f"[{chip.low_mm2:.2f}, {chip.high_mm2:.2f}], peak {cost.peak_tops:.3f} TOPS, "
        f"{cost.peak_mw:,.0f} mW with all lanes at work, {cost.idle_mw:,.1f} mW idle."
    )


def comparison_rows(costs: Sequence[MachineCost]) -> list[Row]:
    """Return a row for each figure and a column for each machine."""
    figures = {
        "technology": lambda cost: cost.machine.technology.name,
        "clock (MHz)": lambda cost: f"{cost.machine.config.clock_mhz:g}",
        "number format": lambda cost: cost.machine.config.number_format,
        "PPE lanes": lambda cost: f"{cost.machine.config.arrays['protected'].lanes:,}",
        "PE lanes": lambda cost: f"{cost.machine.config.arrays['unprotected'].lanes:,}",
        "area (mm2)": lambda cost: f"{cost.area.total_mm2:.3f}",
        "area, range (mm2)": lambda cost: f"{cost.area.low_mm2:.2f} to {cost.area.high_mm2:.2f}",
        "peak (TOPS)": lambda cost: f"{cost.peak_tops:.3f}",
        "peak (TOPS/mm2)": lambda cost: f"{cost.peak_tops / cost.area.total_mm2:.3f}",
        "power, idle (mW)": lambda cost: f"{cost.idle_mw:,.1f}",
        "power, all lanes at work (mW)": lambda cost: f"{cost.peak_mw:,.1f}",
        "peak (TOPS/W)": lambda cost: f"{cost.peak_tops / cost.peak_mw * 1000:.2f}",
    }
    rows: list[Row] = [
        {"what": what, **{cost.name: of(cost) for cost in costs}} for what, of in figures.items()
    ]
    names = dict.fromkeys(name for cost in costs for name in cost.area.by_component_mm2)
    rows += [
        {
            "what": f"{name} (mm2)",
            **{cost.name: f"{cost.area.by_component_mm2.get(name, 0.0):.3f}" for cost in costs},
        }
        for name in names
    ]
    return rows


def summary(cost: MachineCost) -> dict[str, Any]:
    """Return plain data that JSON can hold, units in the names."""
    return {
        "machine": cost.name,
        "technology": cost.machine.technology.name,
        "area_total_mm2": cost.area.total_mm2,
        "area_range_mm2": [cost.area.low_mm2, cost.area.high_mm2],
        "peak_tops": cost.peak_tops,
        "idle_mw": cost.idle_mw,
        "peak_mw": cost.peak_mw,
        "components": component_rows(cost),
        "parts": area_rows(cost),
        "actions": action_rows(cost),
        "figures": list(cost.figures.values()),
    }

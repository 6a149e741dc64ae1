"""The page of machines alone: area and power by component, and what moves them most."""

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.figure import Figure

from nce_sim.cost.area import area_alone
from nce_sim.cost.peak import power_by_component
from nce_sim.cost.sensitivity import swings
from nce_sim.report.cost_figures import stack_bars
from nce_sim.report.machine_cost import (
    MachineCost,
    action_rows,
    area_rows,
    comparison_rows,
    component_rows,
    failure_rows,
    headline,
)
from nce_sim.report.study_page import StudyReport
from nce_sim.report.style import add_grid, new_figure, styled
from nce_sim.report.tornado_figure import figure_tornado


def machine_cost_report(costs: Sequence[MachineCost], version: str) -> StudyReport:
    """Return the report of one machine, or of several beside one another."""
    figures = {
        "cost": (
            figure_cost(costs),
            "Area and power by component. Whiskers take every figure of the technology table at "
            "the end of its range; peak power is that of all lanes at work.",
        )
    }
    for cost in costs:
        figures[f"tornado-{cost.name}"] = (
            _tornado(cost),
            f"How far each figure of the table moves area and peak power of {cost.name} if it "
            "alone is taken at either end of its range; a star marks assumptions.",
        )
    names = ", ".join(cost.name for cost in costs)
    tables = {}
    for cost in costs:
        tables[f"area-{cost.name}"] = area_rows(cost)
        tables[f"energy-{cost.name}"] = action_rows(cost)
        if cost.failures:
            tables[f"rates-{cost.name}"] = failure_rows(cost)
        tables[f"figures-{cost.name}"] = list(cost.figures.values())
    return StudyReport(
        title=f"{names}: area and power",
        lead="What the machine costs before it runs anything, each figure with its source in the "
        "tables beside this page.",
        headline=[headline(cost) for cost in costs],
        figures=figures,
        rows=component_rows(costs[0]) if len(costs) == 1 else comparison_rows(costs),
        making=[
            ("nce-sim", version),
            *((cost.name, cost.machine.config.description) for cost in costs),
            *((f"Technology of {cost.name}", cost.machine.technology.description)
              for cost in costs),
        ],
        tables=tables,
    )  # fmt: skip


@styled
def figure_cost(costs: Sequence[MachineCost]) -> Figure:
    """Return stacked bars of area and of peak power, one for each machine."""
    figure = new_figure(4.6, "Area and peak power by component")
    area_axes, power_axes = figure.subplots(1, 2)
    names = [cost.name for cost in costs]
    stack_bars(area_axes, [dict(cost.area.by_component_mm2) for cost in costs], names)
    low = [cost.area.total_mm2 - cost.area.low_mm2 for cost in costs]
    high = [cost.area.high_mm2 - cost.area.total_mm2 for cost in costs]
    area_axes.errorbar(
        names, [cost.area.total_mm2 for cost in costs], [low, high], fmt="none", ecolor="black",
        elinewidth=1, capsize=3,
    )  # fmt: skip
    area_axes.set_ylabel("Area (mm²)")
    peaks = [{name: power.peak_mw for name, power in cost.power.items()} for cost in costs]
    stack_bars(power_axes, peaks, names)
    power_axes.set_ylabel("Power, all lanes at work (mW)")
    handles: dict[str, Artist] = {}
    for axes in (area_axes, power_axes):
        axes.set_xlim(-0.8, len(costs) - 0.2)
        axes.tick_params(axis="x", rotation=0 if len(costs) < 3 else 30)
        add_grid(axes, "y")
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(str(label), handle)
    figure.legend(
        list(handles.values()), [name.capitalize() for name in handles],
        loc="outside lower center", ncols=3,
    )  # fmt: skip
    return figure


def _tornado(cost: MachineCost) -> Figure:
    panels = [
        ("Area (mm²)", lambda machine: area_alone(machine).total_mm2),
        (
            "Power, all lanes at work (mW)",
            lambda machine: sum(
                power.peak_mw for power in power_by_component(machine, area_alone(machine)).values()
            ),
        ),
    ]
    table = cost.machine.technology.name
    return figure_tornado(
        f"{cost.name}: which figure of table {table} moves the answer most",
        [(label, answer(cost.machine), swings(cost.machine, answer)) for label, answer in panels],
    )

"""What fails at which supply voltage: SRAM cells and lanes, with their ranges."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nce_sim.config.voltage import VoltageTable
from nce_sim.config.voltage_curves import Range
from nce_sim.report.style import SMALL, add_grid, new_figure, styled

TABLE_COLOURS = ("#0072b2", "#d55e00", "#b38f00", "#56b4e9")
CLOCK_COLOURS = ("#009e73", "#6f6f6f", "#cc79a7", "#e69f00")
LOWEST_SHOWN = 1e-9
STEPS = 401

Rate = Callable[[float], Range]


@styled
def figure_voltage(tables: Sequence[VoltageTable], clocks_mhz: Sequence[float]) -> Figure:
    """Draw failing cells of all tables, and timing errors of the first one's lanes by clock.

    At most four of each. Bands are ranges with every figure at its worst end.
    """
    figure = new_figure(5.6, "What fails at a supply voltage; bands: every figure at its worst end")
    top, bottom = figure.subplots(2, 1, sharex=True)
    for table, colour in zip(tables, TABLE_COLOURS, strict=False):
        _draw(top, table, table.sram.probability, table.name, colour)
        _mark_end(top, table, colour)
    lanes = tables[0]
    for clock, colour in zip(clocks_mhz, CLOCK_COLOURS, strict=False):
        _draw(bottom, lanes, _rate_at(lanes, clock), f"{clock:g} MHz", colour)
    _mark_end(bottom, lanes, TABLE_COLOURS[0])
    top.set_title("SRAM cell fails")
    bottom.set_title(f"Lane errs in a cycle ({lanes.name})")
    bottom.set_xlabel("Supply voltage (V)")
    low_v = min(table.limits.low_v for table in tables)
    bottom.set_xlim(low_v - 0.02, low_v + 0.26)
    for axes in (top, bottom):
        axes.set_ylabel("Probability")
        axes.legend(loc="upper right")
    return figure


def _rate_at(table: VoltageTable, clock_mhz: float) -> Rate:
    nominal_v = table.nominal_voltage_v
    return lambda voltage_v: table.lanes.rate_per_cycle(voltage_v, clock_mhz, nominal_v)


def _draw(axes: Axes, table: VoltageTable, rate: Rate, label: str, colour: str) -> None:
    """Draw one rate with its range, over the voltages that its table covers."""
    voltages = np.linspace(table.limits.low_v, table.limits.high_v, STEPS)
    low, best, high = np.array([rate(voltage) for voltage in voltages]).T
    floor = LOWEST_SHOWN / 10  # a logarithmic axis has no place for zero
    axes.fill_between(
        voltages, np.maximum(low, floor), np.maximum(high, floor),
        color=colour, alpha=0.2, linewidth=0,
    )  # fmt: skip
    axes.plot(voltages, np.where(best > 0, best, np.nan), color=colour, label=label)
    axes.set_yscale("log")
    axes.set_ylim(LOWEST_SHOWN, 2)
    add_grid(axes)


def _mark_end(axes: Axes, table: VoltageTable, colour: str) -> None:
    """Show where a table ends."""
    first_v = table.limits.low_v
    axes.axvline(first_v, color=colour, linestyle=":", linewidth=1)
    axes.text(
        first_v - 0.002, LOWEST_SHOWN * 2, "refused below", rotation=90,
        ha="right", va="bottom", fontsize=SMALL, color=colour,
    )  # fmt: skip

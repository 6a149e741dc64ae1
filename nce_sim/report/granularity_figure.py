"""What fine granularity buys and costs: latency and energy by unit of the split."""

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nce_sim.report.style import add_grid, new_figure, styled
from nce_sim.study.granularity import UNITS, GranularityPoint, GranularityStudy

COLOURS = ("#0072b2", "#56b4e9", "#009e73", "#d55e00", "#6f6f6f")
MARKERS = ("o", "D", "s", "^", "v")

Measure = Callable[[GranularityPoint], float]
MEASURES: tuple[tuple[str, Measure], ...] = (
    ("Latency", lambda point: point.latency_cycles),
    ("Energy", lambda point: point.energy_pj),
)


@styled
def figure_granularity(studies: Sequence[GranularityStudy]) -> Figure:
    """Draw latency and energy against the unprotected share, relative to protecting everything.

    One row a study. Below 1 the split pays.
    """
    machine = studies[0].machine
    figure = new_figure(
        0.6 + 2.6 * len(studies), f"Splits of the same share by coarser units, on {machine}"
    )
    grid = figure.subplots(len(studies), len(MEASURES), squeeze=False, sharex=True)
    for row, study in zip(grid, studies, strict=True):
        for axes, (name, measure) in zip(row, MEASURES, strict=True):
            _draw(axes, study, measure)
            axes.set_title(f"{study.network} ({study.method}): {name.lower()}")
            axes.set_ylabel(f"{name} / all protected")
    for axes in grid[-1]:
        axes.set_xlabel("Neurons on PEs (%)")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(UNITS))
    return figure


def _draw(axes: Axes, study: GranularityStudy, measure: Measure) -> None:
    whole = measure(study.protected)
    for unit, colour, marker in zip(UNITS, COLOURS, MARKERS, strict=True):
        points = study.of(unit.name)
        axes.plot(
            [100 * point.fraction for point in points],
            [measure(point) / whole for point in points],
            marker=marker, markersize=4, color=colour, label=unit.name,
        )  # fmt: skip
    axes.axhline(1, color="black", linewidth=0.8, linestyle=":")
    axes.set_ylim(bottom=0)
    add_grid(axes, "y")

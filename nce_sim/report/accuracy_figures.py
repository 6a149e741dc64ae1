"""Accuracy against the share of the neurons that are unprotected."""

from collections.abc import Sequence
from math import ceil

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nce_sim.accuracy.statistics import Estimate, Proportion
from nce_sim.faults.models import FaultModel
from nce_sim.report.selection import dropouts, noises
from nce_sim.report.style import add_grid, method_look, method_name, new_figure, styled
from nce_sim.study.main_job import MainJobResult


@styled
def figure_accuracy_dropout(result: MainJobResult) -> Figure | None:
    """Return accuracy under dropout, a panel for each probability; None if none was injected."""
    return _accuracy(result, dropouts(result), "Accuracy under dropout", "p")


@styled
def figure_accuracy_noise(result: MainJobResult) -> Figure | None:
    """Return accuracy under Gaussian noise, a panel for each sigma; None if none was injected."""
    return _accuracy(result, noises(result), "Accuracy under additive Gaussian noise", "sigma")


def _accuracy(
    result: MainJobResult, faults: list[FaultModel], title: str, symbol: str
) -> Figure | None:
    if not faults:
        return None
    columns = min(3, len(faults))
    rows = ceil(len(faults) / columns)
    figure = new_figure(0.9 + (2.4 if columns < 3 else 2.1) * rows, title)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, fault in zip(panels.flat, faults, strict=False):
        for method in result.plan.methods:
            _draw_method(axes, result, method, fault)
        fault_free = 100 * result.fault_free.value
        axes.axhline(fault_free, color="black", linestyle=":", linewidth=1.2, label="Fault-free")
        axes.set_title(f"{symbol} = {fault.level:g}")
        axes.set_xlim(-2, 102)
        axes.set_xticks(range(0, 101, 20 if columns < 3 else 25))
        axes.set_ylim(0, 100)
        add_grid(axes)
    for axes in panels.flat[len(faults) :]:
        axes.set_axis_off()
    for axes in panels[:, 0]:
        axes.set_ylabel("Top-1 accuracy (%)")
    for axes in panels.flat[len(faults) - columns : len(faults)]:
        axes.set_xlabel("Neurons on PEs (%)")
        axes.tick_params(labelbottom=True)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def _draw_method(axes: Axes, result: MainJobResult, method: str, fault: FaultModel) -> None:
    points = sorted(
        (p for p in result.accuracy if p.method == method and p.fault == fault),
        key=lambda point: point.split.unprotected_fraction,
    )
    draw_curve(
        axes,
        method,
        [point.split.unprotected_fraction for point in points],
        [point.result.correct for point in points],
    )


def draw_curve(
    axes: Axes, method: str, fractions: Sequence[float], correct: Sequence[Proportion | Estimate]
) -> None:
    """Draw one method's accuracy over the unprotected fraction, with its confidence band."""
    share = [100 * fraction for fraction in fractions]
    look = method_look(method)
    axes.fill_between(
        share, [100 * c.low for c in correct], [100 * c.high for c in correct],
        color=look["color"], alpha=0.16, linewidth=0,
    )  # fmt: skip
    axes.plot(share, [100 * c.value for c in correct], label=method_name(method), **look)

"""Which PPE ratio balances the arrays: latency over it, and how busy each array is by layer."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nce_sim.report.style import DOMAIN_COLOURS, add_grid, new_figure, styled
from nce_sim.schedule.domains import DOMAINS, PROTECTED
from nce_sim.study.ppe_ratio import RatioStudy

ELEMENT = {True: "PPE", False: "PE"}


@styled
def figure_ratio(study: RatioStudy) -> Figure:
    """Draw latency and energy over the PPE ratio, and utilisation by layer at the best ratio."""
    figure = new_figure(
        5.2,
        f"{study.network} on machines of family '{study.family}' of {study.base}, "
        f"{study.split.unprotected_fraction:.0%} unprotected",
    )
    top, bottom = figure.subplots(2, 1, height_ratios=[1.1, 1])
    _draw_ratio(top, study)
    _draw_layers(bottom, study)
    return figure


def _draw_ratio(axes: Axes, study: RatioStudy) -> None:
    ratios = [100 * point.ppe_ratio for point in study.points]
    latencies = [point.latency_us for point in study.points]
    axes.plot(ratios, latencies, marker="o", color="#0072b2", label="latency")
    axes.plot(
        [100 * study.best.ppe_ratio], [study.best.latency_us], marker="*", markersize=12,
        color="#d55e00", linestyle="none", label="best fixed ratio",
    )  # fmt: skip
    by_layer = study.best.latency_us * (1 - study.gain_by_layer)
    simulated = study.fused_by_layer is not None
    name = "fused by layer" if simulated else "a ratio by layer, at no cost (bound)"
    axes.axhline(by_layer, color="black", linestyle="--", linewidth=1, label=name)
    axes.set_yscale("log")
    axes.set_xlabel("PPE ratio (% of the lanes)")
    axes.set_ylabel("Latency (us)")
    axes.legend(loc="upper center")
    add_grid(axes, "y")


def _draw_layers(axes: Axes, study: RatioStudy) -> None:
    """Draw how busy each array is in each layer at the best ratio."""
    names = [name for name in study.best.busy if any(study.best.busy[name].values())]
    places = np.arange(len(names))
    for shift, domain in zip((-0.2, 0.2), DOMAINS, strict=True):
        axes.bar(
            places + shift,
            [100 * study.best.busy[name][domain] for name in names],
            width=0.4, color=DOMAIN_COLOURS[domain], label=f"{ELEMENT[domain == PROTECTED]} array",
        )  # fmt: skip
    axes.set_xticks(places, names, rotation=45 if len(names) > 8 else 0)
    axes.set_ylabel("Computing (% of the time)")
    axes.set_ylim(0, 118)
    axes.set_title("At the best fixed ratio")
    axes.legend(loc="upper right", ncols=2)
    add_grid(axes, "y")

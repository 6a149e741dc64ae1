"""Where a network's resilience lies: over its layers, and over the maps of single layers."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nce_sim.report.resilience_summary import (
    LayerResilience,
    Map,
    layer_resilience,
    relevance_map,
    spatial_layers,
)
from nce_sim.report.style import SMALL, add_grid, method_look, method_name, new_figure, styled
from nce_sim.resilience.ranking import Ranking

LAYER_CAPTION = (
    "With LRP the harmonic mean of a layer's resilience equals its number of neurons, but for "
    "lost relevance, so its line lies at 1 (eq. 4 of the paper). A method whose line falls or "
    "rises protects some layers at the cost of others."
)
SPATIAL_CAPTION = (
    "Relevance over the positions of a map, summed over channels: 1 is an even spread, and "
    "dark positions are protected first. In the difference, purple marks where the gradient "
    "sees more relevance than the other method, orange where it sees less."
)


@styled
def figure_layer_resilience(rankings: Mapping[str, Ranking]) -> Figure:
    """Return the mean resilience of each layer divided by its neurons (Fig. 6 of the paper).

    `rankings` are those of one network by their method.
    Scores other than LRP's have no scale of their own: their lines are divided by their
    geometric mean over the layers. Below, the share of neurons without any relevance.
    """
    figure = new_figure(4.8, "Mean resilience of a layer by its number of neurons")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    names: list[str] = []
    for method, ranking in rankings.items():
        layers = layer_resilience(ranking)
        names = [layer.name for layer in layers]
        _draw_harmonic(upper, names, layers, method)
        share = [100 * layer.share_infinite for layer in layers]
        lower.plot(names, share, **method_look(method))
    if "lrp" in rankings:
        _draw_arithmetic(upper, names, layer_resilience(rankings["lrp"]))
    upper.set_yscale("log")
    upper.set_ylabel("Mean resilience\nby neurons")
    lower.set_ylabel("Infinite (%\nof neurons)")
    lower.set_ylim(-4, max(30.0, lower.get_ylim()[1]))
    lower.tick_params("x", rotation=90 if len(names) > 12 else 45)
    for axes in (upper, lower):
        add_grid(axes)
    figure.legend(loc="outside lower center", ncols=1)
    return figure


def _draw_harmonic(
    axes: Axes, names: list[str], layers: list[LayerResilience], method: str
) -> None:
    means = np.array([layer.harmonic_by_neurons for layer in layers])
    label = f"{method_name(method)}, harmonic mean"
    if method != "lrp":
        known = means[np.isfinite(means) & (means > 0)]
        means = means / np.exp(np.log(known).mean()) if len(known) else means
        label += " (scaled: its unit is arbitrary)"
    axes.plot(names, means, label=label, **method_look(method))


def _draw_arithmetic(axes: Axes, names: list[str], layers: list[LayerResilience]) -> None:
    means = [layer.arithmetic_by_neurons for layer in layers]
    label = "LRP, arithmetic mean; infinite ones left out"
    axes.plot(names, means, linestyle="--", markerfacecolor="white", label=label,
              **method_look("lrp"))  # fmt: skip


@styled
def figure_spatial_resilience(rankings: Mapping[str, Ranking], lead: str) -> Figure | None:
    """Return maps of relevance over the first and a middle layer (Fig. 5 of the paper).

    `rankings` are those of one network by their method. Relevance is summed over the channels and
    divided by its mean over the positions. Beside the `lead` method stand the gradient, where it
    was run, and the difference of the two. None if no layer has more than one position.
    """
    names = spatial_layers(rankings[lead])
    if not names:
        return None
    methods = [lead]
    methods += ["gradient"] if "gradient" in rankings and lead != "gradient" else []
    title = "Relevance by position (multiples of the mean)"
    figure = new_figure(0.8 + 1.9 * len(names), title)
    panels = figure.subplots(len(names), len(methods) + (len(methods) == 2), squeeze=False)
    for row, name in zip(panels, names, strict=True):
        maps = [relevance_map(rankings[method], name) for method in methods]
        limit = max(float(each.max()) for each in maps)
        for axes, values, method in zip(row, maps, methods, strict=False):
            _draw_map(axes, values, (0, limit), "cividis_r")
            axes.set_title(method_name(method))
        if len(maps) == 2:
            difference = maps[1] - maps[0]
            reach = float(np.abs(difference).max()) or 1.0
            _draw_map(row[2], difference, (-reach, reach), "PuOr")
            row[2].set_title(f"{method_name(methods[1])} - {method_name(methods[0])}")
        row[0].set_ylabel(f"{name}, row")
    for axes in panels[-1]:
        axes.set_xlabel("column")
    return figure


def _draw_map(axes: Axes, values: Map, limits: tuple[float, float], colours: str) -> None:
    image = axes.imshow(
        np.atleast_2d(values), cmap=colours, vmin=limits[0], vmax=limits[1],
        interpolation="nearest",
    )  # fmt: skip
    figure = axes.get_figure()
    assert figure is not None
    bar = figure.colorbar(image, cax=axes.inset_axes((1.05, 0, 0.05, 1)))
    bar.ax.tick_params(labelsize=SMALL)
    axes.tick_params(labelsize=SMALL)
    for spine in axes.spines.values():
        spine.set_visible(False)

"""Figures of a campaign: how inferences end, how accurate they are, and which layers matter."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nce_sim.report.style import SMALL, add_grid, new_figure, styled
from nce_sim.study.campaign import CampaignPoint, CampaignResult

OUTCOME_COLOURS = {
    "critical SDC": "#b2182b",
    "other SDC": "#ef8a62",
    "DUE": "#f0c808",
    "same answer": "#9ecae1",
    "same bits": "#d9d9d9",
}
"""How an inference ends, the worst first."""

ROW_INCHES = 0.3
LONGEST_LABEL = 44


def outcomes(point: CampaignPoint) -> dict[str, float]:
    """Return the shares of the ways in which inferences end; they sum to 1."""
    rates = point.result.rates
    return {
        "critical SDC": rates["critical_sdc"].value,
        "other SDC": rates["sdc"].value - rates["critical_sdc"].value,
        "DUE": rates["due"].value,
        "same answer": rates["masked_top1"].value,
        "same bits": rates["masked_bits"].value,
    }


def point_name(result: CampaignResult, point: CampaignPoint) -> str:
    """Return a case's name, with its fraction where there are several."""
    name = point.case.name
    if len(result.config.fractions) > 1:
        name += f", {point.fraction:.0%} on PEs"
    return name if len(name) <= LONGEST_LABEL else f"{name[: LONGEST_LABEL - 3]}..."


@styled
def figure_outcomes(result: CampaignResult) -> Figure:
    """Draw one bar a point: the shares of inferences by how they ended."""
    points = result.points
    figure = new_figure(1.3 + ROW_INCHES * len(points), "How inferences end")
    axes = figure.subplots()
    places = np.arange(len(points))[::-1]
    left = np.zeros(len(points))
    for name, colour in OUTCOME_COLOURS.items():
        shares = 100 * np.array([outcomes(point)[name] for point in points])
        axes.barh(places, shares, left=left, height=0.7, color=colour, label=name)
        left += shares
    _name_rows(axes, result, points, places)
    axes.set_xlim(0, 100)
    axes.set_xlabel("Inferences (%)")
    figure.legend(loc="outside lower center", ncols=len(OUTCOME_COLOURS), fontsize=SMALL)
    add_grid(axes, "x")
    return figure


@styled
def figure_accuracy(result: CampaignResult) -> Figure:
    """Draw the accuracy of each point with its interval, and that without faults."""
    points = result.points
    figure = new_figure(1.2 + ROW_INCHES * len(points), "Accuracy under faults")
    axes = figure.subplots()
    places = np.arange(len(points))[::-1]
    rates = [point.result.rates["accuracy"] for point in points]
    value = 100 * np.array([rate.value for rate in rates])
    low = value - 100 * np.array([rate.low for rate in rates])
    high = 100 * np.array([rate.high for rate in rates]) - value
    axes.errorbar(
        value, places, xerr=[low, high], fmt="o", color="#0072b2", ecolor="#56b4e9", capsize=2
    )
    clean = 100 * points[0].result.fault_free.value
    axes.axvline(clean, color="black", linestyle="--", linewidth=1, label="without faults")
    _name_rows(axes, result, points, places)
    axes.set_xlabel("Right answers (%)")
    figure.legend(loc="outside lower center", fontsize=SMALL)
    add_grid(axes, "x")
    return figure


def _name_rows(
    axes: Axes, result: CampaignResult, points: Sequence[CampaignPoint], places: np.ndarray
) -> None:
    axes.set_yticks(places, [point_name(result, point) for point in points])
    axes.set_ylim(-0.6, len(points) - 0.4)


@styled
def figure_series(result: CampaignResult) -> Figure | None:
    """Draw the accuracy over the measured share of wrong neurons, a line for each series of cases.

    None if no case belongs to a series.
    """
    names = dict.fromkeys(point.case.series for point in result.points if point.case.series)
    if not names:
        return None
    fractions = result.config.fractions
    figure = new_figure(0.8 + 2.9 * len(fractions), "Accuracy over the share of wrong neurons")
    panels = np.atleast_1d(figure.subplots(len(fractions), 1, sharex=True))
    for axes, fraction in zip(panels, fractions, strict=True):
        for number, name in enumerate(names):
            points = sorted(
                (p for p in result.points if (p.case.series, p.fraction) == (name, fraction)),
                key=lambda point: point.result.error_rate,
            )
            _draw_series(axes, points, SERIES_LOOKS[number % len(SERIES_LOOKS)], str(name))
        clean = 100 * result.points[0].result.fault_free.value
        axes.axhline(clean, color="black", linestyle="--", linewidth=1, label="without faults")
        axes.set_xscale("log")
        axes.set_ylim(0, 100)
        axes.set_ylabel("Right answers (%)")
        axes.set_title(f"{fraction:.0%} of the neurons on PEs")
        add_grid(axes)
    panels[-1].set_xlabel("Share of all neurons whose stored value is another")
    panels[0].legend(fontsize=SMALL)
    return figure


SERIES_LOOKS = (
    ("#0072b2", "o"), ("#d55e00", "s"), ("#009e73", "^"), ("#cc79a7", "D"), ("#6f6f6f", "v"),
    ("#e69f00", "P"),
)  # fmt: skip
"""Colours and markers of series, in their order."""


def _draw_series(
    axes: Axes, points: Sequence[CampaignPoint], look: tuple[str, str], name: str
) -> None:
    rates = [point.result.rates["accuracy"] for point in points]
    colour, marker = look
    x = [point.result.error_rate for point in points]
    axes.plot(x, [100 * rate.value for rate in rates], color=colour, marker=marker, label=name)
    axes.fill_between(
        x, [100 * rate.low for rate in rates], [100 * rate.high for rate in rates], color=colour,
        alpha=0.15, linewidth=0,
    )  # fmt: skip


@styled
def figure_layers(result: CampaignResult) -> Figure | None:
    """Draw, for points whose faults strike one at a time, the chance of an SDC by layer.

    None if no fault of any point struck a layer.
    """
    tables = {
        point_name(result, point): {str(row["layer"]): row for row in point.result.by_layer()}
        for point in result.points
    }
    layers = [
        name for name in result.points[0].result.layers
        if any(name in table for table in tables.values())
    ]  # fmt: skip
    named = {name: table for name, table in tables.items() if table}
    if not layers or not named:
        return None
    grid = np.array([[_sdc(table, layer) for layer in layers] for table in named.values()], float)
    figure = new_figure(
        1.6 + ROW_INCHES * len(named), "Silent wrong answers, by first layer struck"
    )
    axes = figure.subplots()
    image = axes.imshow(100 * grid, cmap="OrRd", vmin=0, aspect="auto")
    axes.set_xticks(range(len(layers)), layers, rotation=45, ha="right")
    axes.set_yticks(range(len(named)), list(named))
    for (row, column), share in np.ndenumerate(grid):
        if np.isfinite(share):
            dark = 100 * share > 0.6 * float(np.nanmax(100 * grid))
            axes.text(
                column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=SMALL - 1,
                color="white" if dark and share > 0 else "black",
            )  # fmt: skip
    figure.colorbar(image, ax=axes, label="SDC (% of those inferences)")
    return figure


def _sdc(table: dict[str, dict[str, float | str]], layer: str) -> float:
    return float(table[layer]["sdc"]) if layer in table else float("nan")

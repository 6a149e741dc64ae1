"""How late answers come, and what each policy costs above the best plan."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nce_sim.report.policy_look import colour, short_name
from nce_sim.report.style import SMALL, add_grid, new_figure, styled
from nce_sim.study.reconfiguration import Played, Reconfiguration

QUANTILES: dict[str, tuple[float, dict[str, Any]]] = {
    "p50": (0.5, {"marker": "o", "markersize": 4}),
    "p99": (0.99, {"marker": "|", "markersize": 9, "markeredgewidth": 1.4}),
    "p99.99": (0.9999, {"marker": "D", "markersize": 8, "markerfacecolor": "none"}),
}
"""Quantiles of the latency with their markers, which are told apart where they coincide."""

LINEAR_PERCENT = 10.0
"""Regret is on a log axis above this."""

LARGE_PERCENT = 300.0
"""Regret that is nowhere larger is on a linear axis."""


@styled
def figure_latency(study: Reconfiguration) -> Figure:
    """Draw latency quantiles beside deadline and fault-tolerant time, and regret, by policy."""
    count = len(study.played)
    figure = new_figure(1.7 + 0.28 * count, "Latency, and cost above the optimum")
    latencies, regrets = figure.subplots(1, 2, sharey=True, width_ratios=[1.5, 1])
    for row, played in enumerate(study.played):
        _draw_latency(latencies, row, played)
        regrets.barh(row, 100 * played.regret, height=0.6, color=colour(played.kind))
    requests = study.scenario.requests
    latencies.axvline(requests.deadline_us, color="#b00020", linewidth=1, label="deadline")
    latencies.axvline(
        requests.fault_tolerant_time_us, color="#b00020", linewidth=1, linestyle="--",
        label="fault-tolerant time",
    )  # fmt: skip
    latencies.set_xscale("log")
    latencies.set_xlabel("Latency (us)")
    latencies.set_yticks(range(count), [short_name(each.name) for each in study.played])
    latencies.set_ylim(count - 0.4, -0.6)
    for name, (_, marker) in QUANTILES.items():
        latencies.plot([], [], linestyle="", color="#333333", label=name, **marker)
    _scale_regret(regrets, study)
    for axes in (latencies, regrets):
        add_grid(axes, "x")
    handles, labels = latencies.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, columnspacing=1.2)
    return figure


def _draw_latency(axes: Axes, row: int, played: Played) -> None:
    """Draw a policy's quantiles in microseconds on one line."""
    result = played.result
    found = [result.latencies.quantile(share) / result.clock_mhz for share, _ in QUANTILES.values()]
    look = colour(played.kind)
    axes.plot([found[0], found[-1]], [row, row], color=look, linewidth=1.2, alpha=0.4)
    for latency, (_, marker) in zip(found, QUANTILES.values(), strict=True):
        axes.plot([latency], [row], color=look, **marker)


def _scale_regret(axes: Axes, study: Reconfiguration) -> None:
    """Write each bar's value, and leave room for it."""
    shares = [100 * each.regret for each in study.played]
    most, least = max(*shares, 1.0), min(*shares, 0.0)
    if most > LARGE_PERCENT:
        axes.set_xscale("symlog", linthresh=LINEAR_PERCENT)
        axes.set_xlim(least * 1.5, most * (most / LINEAR_PERCENT) ** 0.5)
    else:
        axes.set_xlim(least * 1.5, 1.45 * most)
    axes.axvline(0, color="black", linewidth=0.8)
    for row, share in enumerate(shares):
        axes.annotate(
            f"{share:,.1f}" if share < 100 else f"{share:,.0f}", (max(share, 0), row),
            xytext=(3, 0), textcoords="offset points", va="center", fontsize=SMALL,
        )  # fmt: skip
    axes.set_xlabel("Regret (%)")

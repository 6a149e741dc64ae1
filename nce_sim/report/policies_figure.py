"""What each policy pays and gets, and where adapting beats a static split."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nce_sim.report.policy_choice import energy_uj, followed, named
from nce_sim.report.policy_look import colour, kind_name, marker_look, short_name
from nce_sim.report.spots import Spot, name_spots
from nce_sim.report.style import add_grid, new_figure, styled
from nce_sim.study.reconfiguration import Played, Reconfiguration


@styled
def figure_policies(study: Reconfiguration) -> Figure:
    """Draw the accuracy of the worst window, with its interval, against energy by inference.

    The front is that of the policies that an engine can follow.
    """
    figure = new_figure(5.6, "Accuracy of the worst window against energy")
    axes = figure.subplots()
    for played in study.played:
        _draw_policy(axes, played)
    front = front_of(followed(study))
    axes.plot(
        [energy_uj(each) for each in front], [100 * each.worst_window.value for each in front],
        color="black", linewidth=0.8, linestyle=":", zorder=1, label="front",
    )  # fmt: skip
    axes.axhline(
        100 * study.goals.quality_target, color="#b00020", linewidth=1, label="quality target"
    )
    for kind in dict.fromkeys(each.kind for each in study.played):
        axes.plot([], [], linestyle="", label=kind_name(kind), **marker_look(kind))
    axes.set_xlabel("Energy (uJ per inference)")
    axes.set_ylabel(f"Right of the worst {study.goals.window_requests:,} requests (%)")
    axes.margins(0.1)
    axes.set_ylim(top=min(axes.get_ylim()[1], 101))
    add_grid(axes)
    figure.legend(loc="outside lower center", ncols=4)
    figure.draw_without_rendering()
    name_spots(axes, [_spot(each) for each in study.played], 100 * study.goals.quality_target)
    return figure


def front_of(policies: Sequence[Played]) -> list[Played]:
    """Return those that no other beats in energy and worst window, by rising energy."""
    found: list[Played] = []
    for each in sorted(policies, key=lambda p: (energy_uj(p), -p.worst_window.value)):
        if not found or each.worst_window.value > found[-1].worst_window.value:
            found.append(each)
    return found


def _draw_policy(axes: Axes, played: Played) -> None:
    energy, window = energy_uj(played), played.worst_window
    look = marker_look(played.kind)
    axes.plot(
        [energy, energy], [100 * window.low, 100 * window.high], color=look["color"],
        linewidth=1, alpha=0.35,
    )  # fmt: skip
    axes.plot([energy], [100 * window.value], linestyle="", markersize=7, zorder=3, **look)


def _spot(played: Played) -> Spot:
    window = played.worst_window
    return Spot(
        energy_uj(played), 100 * window.value, 100 * window.low, 100 * window.high,
        short_name(played.name), colour(played.kind),
    )  # fmt: skip


@styled
def figure_against(study: Reconfiguration) -> Figure | None:
    """Draw the best adaptive policy less each static split: worst window, and energy.

    None if there is nothing to hold it against.
    """
    if not study.against:
        return None
    against = study.against
    name = short_name(against[0].adaptive)
    figure = new_figure(1.5 + 0.32 * len(against), f"{name} against static splits")
    windows, energies = figure.subplots(1, 2, sharey=True)
    look = colour(named(study, against[0].adaptive).kind)
    for row, each in enumerate(against):
        found = each.worst_window
        windows.plot([100 * found.low, 100 * found.high], [row, row], color=look, linewidth=3,
                     alpha=0.35)  # fmt: skip
        windows.plot([100 * found.value], [row], color=look, marker="o", markersize=6)
        energies.barh(row, 100 * (each.energy_share - 1), height=0.6, color=look, alpha=0.8)
    windows.set_yticks(range(len(against)), [short_name(each.static) for each in against])
    windows.invert_yaxis()
    windows.set_xlabel("Worst window (points more)")
    energies.set_xlabel("Energy per inference (% more)")
    for axes in (windows, energies):
        axes.axvline(0, color="black", linewidth=0.8)
        axes.margins(x=0.1)
        axes.locator_params(axis="x", nbins=5)
        add_grid(axes, "x")
    return figure

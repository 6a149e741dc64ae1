"""A finished study in words, simple figures and rows."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from math import ceil
from typing import Any

from matplotlib.figure import Figure

from nce_sim import __version__
from nce_sim.report.study_page import StudyReport
from nce_sim.report.style import SMALL, add_grid, method_look, new_figure, styled
from nce_sim.report.tables import frame
from nce_sim.seeding import DRAWS
from nce_sim.study.store import Record
from nce_sim.study.sweep import COLUMNS, SweepResult, varied_fields

MOST_PANELS = 6
MOST_SERIES = 12

SHOWN = (
    "accuracy", "accuracy_low", "accuracy_high", "latency_us", "energy_uj", "energy_low_uj",
    "energy_high_uj", "area_mm2", "area_low_mm2", "area_high_mm2",
)  # fmt: skip
"""What is measured of the page's table; points.csv has all of it."""


def sweep_report(result: SweepResult) -> StudyReport:
    """Return the report of a study."""
    curves = figure_curves(result)
    trade_off = figure_trade_off(result)
    figures = {}
    if curves is not None:
        figures["accuracy"] = (curves, "Accuracy under faults, with its interval.")
    if trade_off is not None:
        figures["trade_off"] = (
            trade_off,
            "Accuracy and energy of all points. Bars: the interval of accuracy, and all figures of "
            "the technology table at one end of their range.",
        )
    return StudyReport(
        title=result.study.name,
        lead=result.study.description.strip(),
        headline=headline(result),
        figures=figures,
        rows=[_shown(row, asked(result)) for row in result.rows],
        making=[("nce-sim", __version__), ("Random generators", DRAWS)],
        tables={"points": [_plain(row) for row in result.rows]},
    )


def headline(result: SweepResult) -> list[str]:
    """Return the answer in sentences: the ends of what was measured."""
    rows = result.rows
    found = [f"{len(rows):,} points were measured."]
    accurate = [row for row in rows if row.get("accuracy") is not None]
    if accurate:
        best, worst = (pick(accurate, key=_number("accuracy")) for pick in (max, min))
        found.append(
            f"Accuracy under faults runs from {_percent(worst)} ({name_of(worst, result)}) to "
            f"{_percent(best)} ({name_of(best, result)})."
        )
        if any(not row["half_width_reached"] for row in accurate):
            missed = sum(not row["half_width_reached"] for row in accurate)
            found.append(f"{missed:,} points did not reach the half-width that was asked.")
    costed = [row for row in rows if row.get("energy_uj") is not None]
    if costed:
        least = min(costed, key=_number("energy_uj"))
        found.append(
            f"The least energy of an inference is {least['energy_uj']:,.1f} uJ "
            f"[{least['energy_low_uj']:,.1f}, {least['energy_high_uj']:,.1f}] "
            f"({name_of(least, result)})."
        )
    return found


def asked(result: SweepResult) -> list[str]:
    """Return the columns of what was asked that differ between rows."""
    names = [*COLUMNS, *varied_fields(result.points)]
    rows = result.rows
    return [name for name in names if len({row.get(name) for row in rows}) > 1]


def name_of(row: Record, result: SweepResult) -> str:
    """Return what tells a row from the others."""
    parts = []
    for name in asked(result):
        value = row.get(name)
        if name == "ranking" and "method" in asked(result):
            continue
        if name == "fraction":
            parts.append(f"{value:.0%} on PEs")
        elif value is not None:
            parts.append(str(value) if name in COLUMNS[:-1] else f"{name} {value}")
    return ", ".join(parts) or "the only one"


def summary(result: SweepResult) -> dict[str, Any]:
    """Return what the study asked and what made its answer, as plain data without times."""
    networks = {point.network.name: point.network.identity for point in result.points}
    machines = {
        point.machine.identity: point.machine.name
        for point in result.points
        if point.machine is not None
    }
    return {
        "study": result.study.model_dump(mode="json"),
        "points": len(result.rows),
        "networks": networks,
        "machines": machines,
        "nce_sim": __version__,
        "random_generators": DRAWS,
        "answer": headline(result),
    }


def parquet_bytes(result: SweepResult) -> bytes:
    """Return all rows as Parquet."""
    content = BytesIO()
    frame([dict(row) for row in result.rows]).to_parquet(content, index=False)
    return content.getvalue()


@styled
def figure_curves(result: SweepResult) -> Figure | None:
    """Draw accuracy over the fraction, a panel a fault; None where that would not be readable."""
    rows = [row for row in result.rows if row.get("accuracy") is not None]
    faults = list(dict.fromkeys(row["fault"] for row in rows))
    series = _series(rows, result, ("fraction", "fault"))
    if not rows or len({row["fraction"] for row in rows}) < 2:
        return None
    if len(faults) > MOST_PANELS or len(series) > MOST_SERIES:
        return None
    columns = min(3, len(faults))
    height = 1.2 + 2.3 * ceil(len(faults) / columns)
    figure = new_figure(height, "Accuracy under faults")
    panels = figure.subplots(
        ceil(len(faults) / columns), columns, sharex=True, sharey=True, squeeze=False
    )
    for axes, fault in zip(panels.flat, faults, strict=False):
        for name, members in series.items():
            mine = [row for row in members if row["fault"] == fault]
            _draw_curve(axes, name, sorted(mine, key=_number("fraction")))
        axes.set_title(str(fault), fontsize=SMALL)
        axes.set_ylim(0, 100)
        add_grid(axes)
    for axes in panels.flat[len(faults) :]:
        axes.set_axis_off()
    figure.supxlabel("Asked share of neurons on PEs (%)")
    figure.supylabel("Top-1 accuracy (%)")
    handles, labels = panels.flat[0].get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=SMALL)
    return figure


def _series(
    rows: Sequence[Record], result: SweepResult, without: tuple[str, ...]
) -> dict[str, list[Record]]:
    """Group rows by all that was asked but for some columns."""
    names = [name for name in asked(result) if name not in without]
    if "ranking" in names and "method" in names:
        names.remove("method")
    found: dict[str, list[Record]] = {}
    for row in rows:
        found.setdefault(", ".join(str(row[name]) for name in names), []).append(row)
    return found


def _draw_curve(axes: Any, name: str, rows: Sequence[Record]) -> None:
    """Draw one series with its intervals."""
    if not rows:
        return
    share, value, low, high = (
        [100 * _number(column)(row) for row in rows]
        for column in ("fraction", "accuracy", "accuracy_low", "accuracy_high")
    )
    (line,) = axes.plot(share, value, marker="o", markersize=3, label=name)
    axes.fill_between(share, low, high, color=line.get_color(), alpha=0.16, linewidth=0)


@styled
def figure_trade_off(result: SweepResult) -> Figure | None:
    """Draw accuracy against energy; None if not both were measured."""
    rows = [row for row in result.rows if None not in (row.get("accuracy"), row.get("energy_uj"))]
    if not rows:
        return None
    figure = new_figure(3.6, "Accuracy against energy")
    axes = figure.subplots()
    for method in dict.fromkeys(str(row["method"]) for row in rows):
        mine = [row for row in rows if row["method"] == method]
        energy, accuracy = (
            [[scale * _number(column)(row) for row in mine] for column in columns]
            for scale, columns in (
                (1, ("energy_uj", "energy_low_uj", "energy_high_uj")),
                (100, ("accuracy", "accuracy_low", "accuracy_high")),
            )
        )
        axes.errorbar(
            energy[0], accuracy[0], xerr=_bars(energy), yerr=_bars(accuracy), linestyle="none",
            elinewidth=0.5, label=method, **method_look(method),
        )  # fmt: skip
    axes.set_xlabel("Energy of an inference (uJ)")
    axes.set_ylabel("Top-1 accuracy (%)")
    axes.set_ylim(0, 100)
    add_grid(axes)
    axes.legend(fontsize=SMALL)
    return figure


def _bars(values: Sequence[Sequence[float]]) -> list[list[float]]:
    """Return the lengths of error bars to either side, of values with both ends."""
    middle, low, high = values
    return [
        [max(0.0, at - end) for at, end in zip(middle, low, strict=True)],
        [max(0.0, end - at) for at, end in zip(middle, high, strict=True)],
    ]


def _number(name: str) -> Any:
    return lambda row: float(row[name])


def _percent(row: Mapping[str, Any]) -> str:
    return (
        f"{row['accuracy']:.1%} [{row['accuracy_low']:.1%}, {row['accuracy_high']:.1%}]"
    )  # fmt: skip


def _shown(row: Record, names: Sequence[str]) -> dict[str, str | float]:
    """Return the columns that the page shows, as it shows them."""
    chosen = {name: row.get(name) for name in (*names, *SHOWN) if name in row}
    return {
        name: "" if value is None else str(value) if isinstance(value, bool) else value
        for name, value in (chosen or {"identity": row["identity"]}).items()
    }


def _plain(row: Record) -> Any:
    return dict(row)

"""The report of a sweep: a page with the answer, a plot to explore, figures and a table.

The page is made from what the folder keeps: the rows of points.csv and the description in
summary.json give the same bytes again.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from nce_sim.errors import InputError
from nce_sim.report.folder import replace_files
from nce_sim.report.html import inline_svg, render
from nce_sim.report.measures import (
    Row,
    Rows,
    Value,
    column_name,
    constants_of,
    is_number,
    measures_of,
    setting_text,
    varied_of,
)
from nce_sim.report.pareto_plot import embedded, plot_data
from nce_sim.report.style import png_bytes, svg_bytes
from nce_sim.report.sweep_answers import answers, brackets
from nce_sim.report.sweep_figures import FIGURES, figures_of
from nce_sim.report.sweep_fronts import fronts_of
from nce_sim.report.tables import FLOAT_FORMAT, csv_bytes

TEMPLATE = "sweep.html.j2"
KIND = "sweep"
FORMAT = 1
"""Raised by one whenever a key of summary.json changes its meaning."""

SHOWN_ACCOUNTS = ("fault_free", "inferences")

MOST_ROWS = 2000
"""Rows of the page's table; a browser takes long to lay out more."""

LONGEST_WORD = 32
"""Letters of a setting's value that are kept on one line of the table."""

ColumnKind = Literal["text", "integer", "number", "truth"]


@dataclass(frozen=True)
class SweepDescription:
    """What was asked: `making` are names and values (versions, hashes, seeds), in their order.

    `configuration` is the text of the study's file, empty if there was none.
    """

    title: str
    lead: str
    making: Sequence[tuple[str, str]]
    configuration: str = ""


def write_sweep(rows: Rows, description: SweepDescription, folder: Path) -> list[str]:
    """Write index.html, points.csv, summary.json and figures into `folder`; return the answer.

    `rows` are flat records with the same columns, one a point. The same rows and description give
    the same bytes. Raises InputError if there are no rows, they have different columns, or the
    folder cannot be written to.
    """
    _check(rows)
    kinds = {name: _kind(rows, name) for name in rows[0]}
    kept = [{name: _as_kept(row[name], kind) for name, kind in kinds.items()} for row in rows]
    headline = answers(kept)
    contents = {
        "points.csv": csv_bytes([_as_written(row) for row in kept]),
        "summary.json": _summary(kept, kinds, description, headline),
    }
    drawn = []
    for name, (figure, caption) in figures_of(kept).items():
        svg = svg_bytes(figure)
        contents[f"figures/{name}.svg"] = svg
        contents[f"figures/{name}.png"] = png_bytes(figure)
        drawn.append({"name": name, "caption": caption, "svg": inline_svg(name, svg)})
    contents["index.html"] = _page(kept, description, headline, drawn)
    owned = [f"figures/{name}.{end}" for name in FIGURES for end in ("svg", "png")]
    replace_files(folder, contents, owned)
    return headline


def _check(rows: Rows) -> None:
    if not rows:
        raise InputError("a sweep without points has no report")
    for number, row in enumerate(rows):
        if row.keys() != rows[0].keys():
            odd = ", ".join(sorted(row.keys() ^ rows[0].keys()))
            raise InputError(
                f"point {number} of the sweep differs from the first in columns: {odd}"
            )


# What the folder keeps.


def _kind(rows: Rows, name: str) -> ColumnKind:
    """Return what a column holds; one of mixed kinds is kept as text."""
    kinds = {type(row[name]) for row in rows} - {type(None)}
    if kinds == {bool}:
        return "truth"
    if kinds == {int}:
        return "integer"
    return "number" if kinds and kinds <= {int, float} else "text"


def _as_kept(value: Value, kind: ColumnKind) -> Value:
    """Return a value as it is read back: floats with the file's digits, none that is not finite."""
    if value is None or value == "":
        return None
    if kind == "number":
        return float(FLOAT_FORMAT % value) if is_number(value) else None
    return str(value) if kind == "text" else value


def _as_written(row: Row) -> dict[str, Any]:
    """Return a row for the CSV: without the whole numbers that pandas would turn into fractions."""
    return {
        name: str(value) if isinstance(value, bool | int) else value for name, value in row.items()
    }


def _summary(
    rows: Rows,
    kinds: dict[str, ColumnKind],
    description: SweepDescription,
    headline: Sequence[str],
) -> bytes:
    content = {
        "format": FORMAT,
        "kind": KIND,
        "description": asdict(description),
        "answer": list(headline),
        "points": len(rows),
        "columns": kinds,
        "fronts": [
            {
                "of": front.group.settings,
                "objectives": front.objectives,
                "rows": front.points,
                "hypervolume": asdict(front.volume),
            }
            for front in fronts_of(rows)
        ],
    }
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()


def read_sweep(folder: Path) -> tuple[list[dict[str, Value]], SweepDescription]:
    """Return the rows and the description that a sweep's folder keeps.

    Raises InputError if the folder is not that of a finished sweep, or its files are damaged.
    """
    summary = _read_summary(folder)
    path = folder / "points.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            table = list(csv.reader(StringIO(file.read())))
        kinds, said = summary["columns"], summary["description"]
        if table[0] != list(kinds):
            raise ValueError("its columns are not those that summary.json names")
        rows = [
            {name: _read(text, kinds[name]) for name, text in zip(table[0], line, strict=True)}
            for line in table[1:]
        ]
        if len(rows) != summary["points"]:
            raise ValueError(
                f"it has {len(rows)} points, summary.json tells of {summary['points']}"
            )
        making = tuple((str(name), str(value)) for name, value in said["making"])
        return rows, SweepDescription(said["title"], said["lead"], making, said["configuration"])
    except (OSError, ValueError, KeyError, TypeError, IndexError) as reason:
        raise InputError(
            f"{path} cannot be read as the points of a sweep ({reason}): run the sweep's command "
            f"again, which finds its finished points"
        ) from reason


def _read_summary(folder: Path) -> dict[str, Any]:
    """Return summary.json; raise InputError if it is not that of a sweep."""
    path = folder / "summary.json"
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: name the folder of a finished sweep")
    if not path.exists():
        raise InputError(f"{folder} {_why_not(folder)}")
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as reason:
        raise InputError(
            f"{path} cannot be read ({reason}): run the sweep's command again"
        ) from reason
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise InputError(
            f"{path} is not that of a sweep: nce-sim report takes the folder of a finished sweep; "
            f"other commands write their pages themselves"
        )
    if content.get("format") != FORMAT:
        raise InputError(
            f"{path} has format {content.get('format')}, this version reads {FORMAT}: run the "
            f"sweep's command again"
        )
    return content


def _why_not(folder: Path) -> str:
    """Return why a folder without summary.json has no page that could be made again."""
    if (folder / "results.json").exists():
        return (
            "is the folder of a main job: its results.json lacks the rankings and runs that the "
            "page draws; nce-sim run makes it. nce-sim report takes the folder of a finished sweep"
        )
    if (folder / "points.csv").exists():
        return (
            "has points.csv but no summary.json, as studies of rankings do, whose page draws the "
            "rankings themselves: nce-sim sweep with the same study and folders finds these in its "
            "store and only makes the page"
        )
    return "has no summary.json: nce-sim report takes the folder of a finished sweep"


def _read(text: str, kind: ColumnKind) -> Value:
    if text == "":
        return None
    if kind == "truth":
        if text not in ("True", "False"):
            raise ValueError(f"'{text}' is neither True nor False")
        return text == "True"
    if kind == "integer":
        return int(text)
    return float(text) if kind == "number" else text


# The page.


def _page(
    rows: Rows,
    description: SweepDescription,
    headline: Sequence[str],
    figures: Sequence[dict[str, Any]],
) -> bytes:
    data = plot_data(rows)
    return render(
        TEMPLATE,
        description=description,
        headline=headline,
        brackets=brackets(rows),
        plot=None if data is None else embedded(data),
        figures=figures,
        table=_table(rows),
        making=[*description.making, ("Points", f"{len(rows):,}"), *constants_of(rows)],
    )


def _table(rows: Rows) -> dict[str, Any]:
    """Return headings and cells: what varies, what was measured, and which points lead."""
    kinds = {name: _cell_kind(rows, name) for name in varied_of(rows)}
    measures = measures_of(rows)
    accounts = [name for name in SHOWN_ACCOUNTS if name in rows[0]]
    fronts = fronts_of(rows)
    leading = {number for front in fronts for number in front.points}
    columns = [
        *({"heading": column_name(name), "kind": kind} for name, kind in kinds.items()),
        *({"heading": _in_lines(measure.heading), "kind": ""} for measure in measures),
        *({"heading": column_name(name), "kind": ""} for name in accounts),
    ]
    if fronts:
        columns.append({"heading": "On the front", "kind": "word"})
    lines = []
    for number in _shown(len(rows), leading):
        row = rows[number]
        cells = [_cell(setting_text(name, row[name]), kind=kind) for name, kind in kinds.items()]
        cells += [_cell(each.number(row), each.interval_text(row)) for each in measures]
        cells += [_cell(_account(name, row[name])) for name in accounts]
        if fronts:
            cells.append(_cell("yes" if number in leading else "", kind="word"))
        lines.append({"point": number, "cells": cells})
    return {"columns": columns, "rows": lines, "left_out": len(rows) - len(lines)}


def _shown(points: int, leading: set[int]) -> list[int]:
    """Return the points that the page's table has: all, or those that lead and the first others."""
    others = (number for number in range(points) if number not in leading)
    return sorted([*leading, *islice(others, max(0, MOST_ROWS - len(leading)))])


def _in_lines(heading: str) -> str:
    """Return a heading with its unit on a line of its own."""
    return heading.replace(" (", "\n(")


def _cell_kind(rows: Rows, name: str) -> str:
    """Return the class of a setting's cells: a number, short words on one line, or running text."""
    if all(is_number(row[name]) for row in rows):
        return ""
    longest = max(len(setting_text(name, row[name])) for row in rows)
    return "word" if longest <= LONGEST_WORD else "text"


def _cell(value: str, interval: str = "", *, kind: str = "") -> dict[str, str]:
    return {"value": value, "interval": interval, "kind": kind}


def _account(name: str, value: Value) -> str:
    if not is_number(value):
        return "-"
    return f"{100 * float(value):.1f} %" if name == "fault_free" else f"{value:,}"  # type: ignore[arg-type]

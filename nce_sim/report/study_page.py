"""The report of a hardware study: a page with answer, figures and table, and each as a file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure

from nce_sim.report.folder import replace_files
from nce_sim.report.html import inline_svg, render
from nce_sim.report.style import png_bytes, svg_bytes
from nce_sim.report.tables import csv_bytes

TEMPLATE = "study.html.j2"


@dataclass(frozen=True)
class StudyReport:
    """What a study's page shows: its answer in words first, then figures, then all points.

    `figures` maps names to (figure, caption); `rows` are flat records, `making` names and values.
    `tables` are further records by the name of their file; one named "points" takes the place of
    `rows` in points.csv.
    """

    title: str
    lead: str
    headline: Sequence[str]
    figures: Mapping[str, tuple[Figure, str]]
    rows: Sequence[Mapping[str, str | float]]
    making: Sequence[tuple[str, str]]
    tables: Mapping[str, Sequence[Mapping[str, str | float]]] = field(default_factory=dict)


def write_study(study: StudyReport, folder: Path) -> None:
    """Write points.csv, figures and index.html into `folder`.

    Raises InputError if the folder cannot be written to.
    """
    tables = {"points": study.rows, **study.tables}
    contents = {f"{name}.csv": csv_bytes([dict(row) for row in rows])
                for name, rows in tables.items() if rows}  # fmt: skip
    svg = {name: svg_bytes(figure) for name, (figure, _) in study.figures.items()}
    for name, (figure, _) in study.figures.items():
        contents[f"figures/{name}.svg"] = svg[name]
        contents[f"figures/{name}.png"] = png_bytes(figure)
    contents["index.html"] = _page(study, svg)
    replace_files(folder, contents, contents)


def _page(study: StudyReport, svg: Mapping[str, bytes]) -> bytes:
    return render(
        TEMPLATE,
        study=study,
        figures=[
            {"name": name, "caption": caption, "svg": inline_svg(name, svg[name])}
            for name, (_, caption) in study.figures.items()
        ],
        columns=list(study.rows[0]),
        tables=[f"{name}.csv" for name in ("points", *study.tables) if name != "points"],
        rows=[[cell_text(value) for value in row.values()] for row in study.rows],
    )


def cell_text(value: str | float) -> str:
    """Return a value of a table as people read it."""
    if isinstance(value, float):
        return f"{value:,.3f}" if abs(value) < 10 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else value

"""Tables in a terminal of any width: what does not fit side by side goes below."""

from collections.abc import Mapping, Sequence
from textwrap import wrap

from rich.console import Console
from rich.table import Table
from rich.text import Text

GAP = 2
"""Spaces between columns."""


def print_rows(console: Console, rows: Sequence[Mapping[str, str]]) -> None:
    """Print rows of the same columns, every cell on one line; columns of numbers to the right.

    Columns that are too many for the console's width go into further tables, each of which begins
    with the first column; headings are broken between words.
    """
    columns = list(rows[0])
    widths = {name: _width(name, [row[name] for row in rows]) for name in columns}
    for names in _fitting(columns, widths, console.width):
        table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False)
        for name in names:
            lines = wrap(name, widths[name])
            table.add_column(
                "\n".join(lines), width=widths[name], no_wrap=True,
                justify="right" if any(_is_number(row[name]) for row in rows) else "left",
            )  # fmt: skip
        for row in rows:
            table.add_row(*(Text(row[name]) for name in names))
        console.print(table, highlight=False)


def _is_number(cell: str) -> bool:
    """Tell whether a cell begins as a number does."""
    return cell[:1].isdigit() or (cell[:1] in ("-", "+", "\u2212") and cell[1:2].isdigit())


def _width(heading: str, cells: Sequence[str]) -> int:
    """Return the width at which no cell and no word of the heading is broken."""
    return max(len(each) for each in (*heading.split(), *cells))


def _fitting(columns: list[str], widths: Mapping[str, int], width: int) -> list[list[str]]:
    """Return the columns of each table: as many as fit, the first of all in each."""
    first, *others = columns
    tables = [[first]]
    for name in others:
        if sum(widths[each] + GAP for each in (*tables[-1], name)) - GAP > width:
            tables.append([first])
        tables[-1].append(name)
    return [table for table in tables if len(table) > 1] or [[first]]

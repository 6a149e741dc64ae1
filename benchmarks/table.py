"""What a benchmark finds, as rows of a table in Markdown and in JSON."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

COLUMNS = ("what", "figure", "median", "least", "most", "best", "note")


@dataclass(frozen=True)
class Row:
    """One figure: its median over the rounds with the least and the most.

    `best` is the ratio of the shortest times, or the shortest time: what a machine that others use
    as well can be trusted with most. All are None where nothing was measured; the note says why.
    """

    what: str
    figure: str
    median: float | None = None
    least: float | None = None
    most: float | None = None
    best: float | None = None
    note: str = ""

    @staticmethod
    def of(
        what: str, figure: str, values: Sequence[float], best: float | None = None, note: str = ""
    ) -> "Row":
        """Return the row of the values of all rounds."""
        return Row(what, figure, statistics.median(values), min(values), max(values), best, note)

    @staticmethod
    def one(what: str, figure: str, value: float, note: str = "") -> "Row":
        """Return the row of a figure without spread."""
        return Row(what, figure, value, note=note)

    @property
    def spread(self) -> str:
        """Return the median with the least and the most, as a text quotes it."""
        if self.median is None:
            return "-"
        if self.least is None or self.most is None or self.least == self.most:
            return brief(self.median)
        return f"{brief(self.median)} [{brief(self.least)}, {brief(self.most)}]"


@dataclass(frozen=True)
class Result:
    """What a group found: `settings` are what it was measured with and on."""

    group: str
    title: str
    settings: dict[str, str]
    rows: list[Row]

    def to_json(self) -> str:
        """Return all of it as JSON."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @staticmethod
    def read(path: Path) -> "Result":
        """Read what `to_json` wrote."""
        content = json.loads(path.read_text())
        return Result(**{**content, "rows": [Row(**row) for row in content["rows"]]})

    def to_markdown(self) -> str:
        """Return a section with a table."""
        lines = [
            f"## {self.group}: {self.title}",
            "",
            "; ".join(f"{name}: {value}" for name, value in self.settings.items()) + ".",
            "",
            "| what | figure | median [least, most] | best | note |",
            "| --- | --- | --- | --- | --- |",
        ]
        for row in self.rows:
            best = "" if row.best is None else brief(row.best)
            cells = (row.what, row.figure, row.spread, best, row.note.replace("|", "\\|"))
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"


def brief(value: float) -> str:
    """Return a figure to three digits; whole ones are written out."""
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"

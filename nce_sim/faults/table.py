"""Tables: frozen dataclasses whose fields are arrays, or tables, with one entry a row."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Rows = NDArray[np.int64] | NDArray[np.bool_]


class Table:
    """What tables have in common. Subclasses are frozen dataclasses."""

    def __len__(self) -> int:
        first = fields(self)[0].name  # type: ignore[arg-type]
        return len(getattr(self, first))

    def __getitem__(self, rows: Rows) -> Self:
        return self.take(rows)

    def take(self, rows: Rows) -> Self:
        """Return some rows: those at the places given, or those marked."""
        columns = (getattr(self, each.name) for each in fields(self))  # type: ignore[arg-type]
        return type(self)(*(column[rows] for column in columns))

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Return all rows of at least one table in their order."""
        joined: list[Any] = []
        for each in fields(cls):  # type: ignore[arg-type]
            columns = [getattr(part, each.name) for part in parts]
            inner = columns[0]
            joined.append(
                inner.join(columns) if isinstance(inner, Table) else np.concatenate(columns)
            )
        return cls(*joined)

"""Tables: frozen dataclasses whose fields are arrays, or tables, with one entry a row."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Rows = NDArray[np.int64] | NDArray[np.bool_]


class Table:
    """What tables have in common. Subclasses are frozen dataclasses."""

    __match_args__: ClassVar[tuple[str, ...]]  # the names of the fields: `dataclass` sets it

    def __len__(self) -> int:
        return len(getattr(self, self.__match_args__[0]))

    def __getitem__(self, rows: Rows) -> Self:
        return self.take(rows)

    def take(self, rows: Rows) -> Self:
        """Return some rows: those at the places given, or those marked."""
        return type(self)(*[getattr(self, name)[rows] for name in self.__match_args__])

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Return all rows of at least one table in their order."""
        joined: list[Any] = []
        for name in cls.__match_args__:
            columns = [getattr(part, name) for part in parts]
            inner = columns[0]
            joined.append(
                inner.join(columns) if isinstance(inner, Table) else np.concatenate(columns)
            )
        return cls(*joined)

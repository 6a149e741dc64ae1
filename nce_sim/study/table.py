"""Records as a table: for pandas, and as a CSV or Parquet file."""

import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from nce_sim.errors import InputError
from nce_sim.files import write_atomically
from nce_sim.study.store import Record, Store


def to_frame(rows: Store | Sequence[Record]) -> pd.DataFrame:
    """Return one line a record, with the columns in the order in which records first name them.

    The records of a store come in the order of their identities, which stand in the index.
    """
    if isinstance(rows, Store):
        kept = dict(rows.records())
        return pd.DataFrame(list(kept.values()), index=pd.Index(list(kept), name="identity"))
    return pd.DataFrame(list(rows))


def write_table(rows: Sequence[Record], path: Path | str) -> None:
    """Write one line a record to a file that ends in .csv or .parquet.

    Raises InputError for another ending, and if the file cannot be written.
    """
    path = Path(path)
    frame = to_frame(rows)
    match path.suffix.lower():
        case ".csv":
            content = frame.to_csv(index=False, lineterminator="\n").encode()
        case ".parquet":
            content = _parquet(frame)
        case _:
            raise InputError(f"{path}: a table's file ends in .csv or .parquet")
    write_atomically(path, content)


def _parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    try:
        import pyarrow  # noqa: F401
    except ImportError as reason:
        raise InputError(
            "Parquet needs a package that is not installed: pip install 'nce-sim[parquet]', "
            "or name a file that ends in .csv"
        ) from reason
    frame.to_parquet(buffer, engine="pyarrow", index=False)
    return buffer.getvalue()

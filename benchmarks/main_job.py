"""How long `nce-sim run` takes, and how much memory: the default study, once."""

import tempfile
import time
from pathlib import Path

from benchmarks.child import in_child, peak_mib
from benchmarks.options import Options
from benchmarks.table import Row
from benchmarks.timing import attempt

PACKAGES = ()


def measure(_: Options) -> list[Row]:
    """Run the main job once in a process of its own."""
    return attempt("nce-sim run", "s", _rows)


def _rows() -> list[Row]:
    start = time.perf_counter()
    mib = in_child(run_main_job)
    seconds = time.perf_counter() - start
    return [
        Row.one("nce-sim run", "s, whole process", seconds, "one run"),
        Row.one("nce-sim run", "MiB, whole process", mib),
    ]


def run_main_job() -> float:
    """Run the command as a user does; return the most memory of its process, MiB."""
    from typer.testing import CliRunner

    from nce_sim.cli.main import app

    with tempfile.TemporaryDirectory() as folder:
        result = CliRunner().invoke(app, ["run", "--out", str(Path(folder) / "run")])
    if result.exit_code:
        raise RuntimeError(result.output)
    return peak_mib()

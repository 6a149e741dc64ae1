"""How long the command line takes until it shows its help."""

import subprocess
import sys

from benchmarks.options import Options
from benchmarks.table import Row
from benchmarks.timing import Job, alternate

TITLE = "start of the command line"
PACKAGES = ()

HELP = "from nce_sim.cli.main import main; main()"


def measure(options: Options) -> list[Row]:
    """Time `nce-sim --help` and a Python that does nothing."""
    makers = {
        "nce-sim --help": lambda: _python("-c", HELP, "--help"),
        "python -c pass": lambda: _python("-c", "pass"),
    }
    times = alternate(makers, options.rounds)
    return [times.absolute(name, "s, whole process") for name in makers]


def _python(*arguments: str) -> Job:
    return lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True)

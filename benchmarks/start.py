"""How long the command line takes until it shows its help."""

import resource
import subprocess
import sys

from benchmarks.options import Options
from benchmarks.table import Row
from benchmarks.timing import Job, alternate

PACKAGES = ()

HELP = "from nce_sim.cli.main import main; main()"


def measure(options: Options) -> list[Row]:
    """Time `nce-sim --help` and a Python that does nothing."""
    makers = {
        "nce-sim --help": lambda: _python("-c", HELP, "--help"),
        "python -c pass": lambda: _python("-c", "pass"),
    }
    times = alternate(makers, options.rounds)
    busy = [_processor_seconds(makers["nce-sim --help"]()) for _ in range(options.rounds)]
    return [
        *(times.absolute(name, "s, whole process") for name in makers),
        Row.of("nce-sim --help", "s of processor time", busy, min(busy)),
    ]


def _processor_seconds(job: Job) -> float:
    """Return what a job's processes kept the processor busy, whatever else ran on it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    job()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _python(*arguments: str) -> Job:
    return lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True)

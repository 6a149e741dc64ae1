"""Run a function of the benchmarks in a Python of its own: its memory and cores are its alone.

python -m benchmarks.child MODULE FUNCTION CORES ARGUMENTS
"""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def in_child(function: Callable[..., Any], cores: int | None = None, **arguments: object) -> Any:
    """Call a function that returns what JSON holds, in a new process that uses so many cores.

    Raises RuntimeError with the last line of its standard error if it fails.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.child", function.__module__, function.__name__,
         str(cores or 0), json.dumps(arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
    return json.loads(done.stdout.splitlines()[-1])


def peak_mib() -> float:
    """Return the most memory that this process has held, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(line for line in lines if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024


def reset_peak() -> float:
    """Forget the most memory so far, and return what this process holds, in MiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_mib()


def main() -> None:
    module, function, cores, arguments = sys.argv[1:]
    if int(cores):  # before torch is imported, which makes a thread a core
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(cores)])
    found = getattr(importlib.import_module(module), function)(**json.loads(arguments))
    print(json.dumps(found))


if __name__ == "__main__":
    main()

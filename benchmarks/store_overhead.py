"""Time what store and workers cost a point: many tasks that compute nothing.

    python benchmarks/store_overhead.py [--tasks 10000] [--workers 1 2]

The first line of each number of workers includes their start, the second does not; the third is a
run that finds all records there.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass

from nce_sim.study.parallel import Engine, run_tasks
from nce_sim.study.shared import Shared
from nce_sim.study.store import Record, Store


@dataclass(frozen=True)
class Nothing:
    """A task whose record is its number."""

    number: int

    @property
    def identity(self) -> str:
        """Return the number in 32 digits."""
        return f"{self.number:032x}"

    def compute(self, _: Shared) -> Record:
        """Return 20 fields."""
        return {f"field {field}": self.number / (field + 1) for field in range(20)}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tasks", type=int, default=10_000)
    options.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    arguments = options.parse_args()
    tasks = [Nothing(number) for number in range(arguments.tasks)]
    print(f"{'workers':>7}  {'run':<14} {'ms a point':>10}")
    for workers in arguments.workers:
        with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
            runs = {"with start": first, "started": second, "all there": second}
            for name, folder in runs.items():
                begin = time.perf_counter()
                run_tasks(tasks, Store(folder), Engine(workers))
                seconds = time.perf_counter() - begin
                print(f"{workers:>7}  {name:<14} {1000 * seconds / len(tasks):>10.3f}")


if __name__ == "__main__":
    main()

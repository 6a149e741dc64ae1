"""Tasks for tests of studies, where worker processes can import them; and a study to kill.

python store_tasks.py FOLDER COUNT WORKERS [LOG]
"""

import os
import signal
import sys
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch

from nce_sim.errors import InputError
from nce_sim.study.parallel import Engine, run_tasks
from nce_sim.study.store import Store


@dataclass(frozen=True)
class Sum:
    """Adds floats in an order that more threads would change; waits, logs and dies on demand."""

    number: int
    seconds: float = 0.0
    log: str | None = None  # a file that gets a line for each time the task is computed
    dies: str | None = None  # a file: the first worker dies and makes it; "always": all die

    @property
    def identity(self):
        return sha256(f"sum {self.number}".encode()).hexdigest()[:32]

    def __str__(self):
        return f"sum number {self.number}"

    def compute(self, shared):
        time.sleep(self.seconds)
        if self.log is not None:
            with open(self.log, "a") as file:
                file.write(f"{self.number} {os.getpid()} {torch.get_num_threads()}\n")
        if self.dies == "always" or (self.dies is not None and not Path(self.dies).exists()):
            if self.dies != "always":
                Path(self.dies).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        base = shared.get(
            "base", f"{self.number % 3:032x}", lambda: self.number % 3 / 7,
            lambda value: repr(value).encode(), float,
        )  # fmt: skip
        values = torch.arange(1000, dtype=torch.float32).add(self.number).sin()
        return {"number": self.number, "sum": float(values.sum()) + base, "text": "ä", "no": None}


@dataclass(frozen=True)
class Wrong(Sum):
    """Cannot be computed."""

    mistake: str = "input"

    def compute(self, shared):
        if self.mistake == "input":
            raise InputError("there is no such thing")
        return 1 / 0


def contents(store):
    """All record files of a store by name."""
    files = sorted((store.folder / "records").glob("*/*"))
    return {path.name: path.read_bytes() for path in files}


def sums(count, **settings):
    return [Sum(number, **settings) for number in range(count)]


def main():
    folder, count, workers, *log = sys.argv[1:]
    tasks = sums(int(count), seconds=0.001, log=log[0] if log else None)
    run_tasks(tasks, Store(folder), Engine(int(workers)))


if __name__ == "__main__":
    main()

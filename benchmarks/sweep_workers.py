"""How much faster two workers are than one, and than one with two threads: ratios in one run.

    python benchmarks/sweep_workers.py [rounds]

Each round measures the same points of All-CNN-C under dropout, of about a second each, in a fresh
store: with one worker of one thread, with two of one thread each, and with one that lets torch use
two threads. Rankings and fault-free answers are made beforehand. Workers stay alive between
rounds, as they do between the points of a long study.
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from nce_sim.config.campaign import DropoutFault
from nce_sim.config.study import AccuracySettings, Axes, StudyConfig, StudyRanking
from nce_sim.study import worker
from nce_sim.study.parallel import Engine
from nce_sim.study.resources import Resources
from nce_sim.study.store import Store
from nce_sim.study.sweep import plan_sweep, run_sweep

RESOURCES = Resources()
FRACTIONS = [number / 20 for number in range(1, 13)]


def study(images: int, fractions: list[float], seed: int = 0) -> StudyConfig:
    axes = {
        "networks": "allcnn-fashion", "rankings": [StudyRanking(method="random")],
        "fractions": fractions, "faults": [DropoutFault(dropout=0.3)], "seeds": [seed],
    }  # fmt: skip
    return StudyConfig(
        name="workers", description="a benchmark", measure=("accuracy",), grid=Axes(**axes),
        accuracy=AccuracySettings(images=images),
    )  # fmt: skip


def seconds(seed: int, folder: Path, prepared: Path, engine: Engine) -> float:
    """Measure points that this process has not seen: another seed each time."""
    plan = plan_sweep(study(192, FRACTIONS, seed), RESOURCES)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(prepared, folder)
    began = time.perf_counter()
    run_sweep(plan, Store(folder), engine, lambda _name, _steps: lambda _done: None)
    return time.perf_counter() - began


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    with tempfile.TemporaryDirectory() as place:
        prepared, folder = Path(place) / "prepared", Path(place) / "store"
        shared = plan_sweep(study(192, [0.0]), RESOURCES)
        run_sweep(shared, Store(prepared), Engine(1), lambda _name, _steps: lambda _done: None)
        found = []
        for number in range(rounds + 1):
            one = seconds(3 * number + 1, folder, prepared, Engine(1))
            two = seconds(3 * number + 2, folder, prepared, Engine(2))
            torch.set_num_threads(2)
            with mock.patch.object(worker.torch, "set_num_threads"):
                threads = seconds(3 * number + 3, folder, prepared, Engine(1))
            if number:
                found.append((one / two, threads / two))
                print(f"one {one:.2f} s, two {two:.2f} s, two threads {threads:.2f} s", flush=True)
    for name, ratio in zip(("one worker", "one worker with two threads"),
                           np.array(found).T, strict=True):  # fmt: skip
        print(
            f"two workers against {name}: {np.median(ratio):.2f} times as fast "
            f"[{ratio.min():.2f}, {ratio.max():.2f}] (median, range of {rounds} rounds)"
        )


if __name__ == "__main__":
    main()

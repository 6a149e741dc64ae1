"""Points of a sweep: two workers against one, and against one with two threads.

Each turn measures points that this process has not seen, in a fresh store: with another seed, or at
fractions a little apart. Plans, rankings and fault-free answers are made beforehand and not timed;
workers stay alive between turns, as they do between the points of a long study.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from unittest import mock

import torch

from benchmarks.options import Options
from benchmarks.table import Row
from benchmarks.timing import Job, alternate
from nce_sim.config.campaign import DropoutFault
from nce_sim.config.study import AccuracySettings, Axes, StudyConfig, StudyRanking
from nce_sim.study import worker
from nce_sim.study.parallel import Engine
from nce_sim.study.resources import Resources
from nce_sim.study.store import Store
from nce_sim.study.sweep import plan_sweep, run_sweep

PACKAGES = ()

COST_ROUNDS = 3
"""At most, of the splits of VGG-16, which take a minute a round."""

RESOURCES = Resources()
StudyOf = Callable[[int], StudyConfig]
"""From the number of a turn to its study."""

APART = 1e-5
"""How much lower the fractions of splits are from one turn to the next."""


def measure(options: Options) -> list[Row]:
    """Measure points of accuracy, about a second each, and splits of VGG-16 on a machine."""
    images = options.images(192)
    fractions = [number / 20 for number in range(1, 4 if options.quick else 13)]
    splits = [number / 100 for number in range(0, 101, 20 if options.quick else 1)]
    accuracy = f"{len(fractions)} points of accuracy, All-CNN-C"
    costs = f"{len(splits)} splits of VGG-16 on nce-28nm"
    return [
        *_rows(accuracy, partial(accuracy_study, images, fractions), options.rounds),
        *_rows(costs, partial(cost_study, splits), min(options.rounds, COST_ROUNDS)),
    ]


def accuracy_study(images: int, fractions: list[float], seed: int) -> StudyConfig:
    """Return a study of accuracy under dropout."""
    axes = Axes(
        networks="allcnn-fashion", rankings=[StudyRanking(method="random")], fractions=fractions,
        faults=[DropoutFault(dropout=0.3)], seeds=[seed],
    )  # fmt: skip
    return StudyConfig(
        name="workers", description="a benchmark", measure=("accuracy",), grid=axes,
        accuracy=AccuracySettings(images=images),
    )  # fmt: skip


def cost_study(fractions: list[float], turn: int) -> StudyConfig:
    """Return a study of cycles and energy, mask to energy: of new splits by the same ranking."""
    axes = Axes(
        networks="vgg16", machines="nce-28nm", rankings=[StudyRanking(method="random")],
        fractions=[fraction * (1 - APART * turn) for fraction in fractions],
    )  # fmt: skip
    return StudyConfig(name="splits", description="a benchmark", measure=("cost",), grid=axes)


def _rows(name: str, study_of: StudyOf, rounds: int) -> list[Row]:
    one, two, threads = "one worker", "two workers", "one worker of two threads"
    with tempfile.TemporaryDirectory() as place:
        folder, turns = Path(place), count(1)
        _sweep(study_of(0), folder / "prepared", 1)
        times = alternate(
            {
                one: lambda: _job(study_of, turns, folder, 1),
                two: lambda: _job(study_of, turns, folder, 2),
                threads: lambda: _with_two_threads(_job(study_of, turns, folder, 1)),
            },
            rounds,
        )
    rows = [
        times.absolute(one),
        times.speed(two, one, "times as fast as one worker"),
        times.speed(two, threads, "times as fast as one worker of two threads"),
    ]
    return [replace(row, what=f"{name}: {row.what}") for row in rows]


def _job(study_of: StudyOf, turns: "count[int]", folder: Path, workers: int) -> Job:
    """Return a sweep over points of its own, where only shared results are there."""

    def run() -> float:
        shutil.rmtree(folder / "store", ignore_errors=True)
        shutil.copytree(folder / "prepared", folder / "store")
        return _sweep(study_of(next(turns)), folder / "store", workers)

    return run


def _sweep(study: StudyConfig, folder: Path, workers: int) -> float:
    """Return the seconds that a planned sweep takes."""
    plan = plan_sweep(study, RESOURCES)
    began = time.perf_counter()
    run_sweep(plan, Store(folder), Engine(workers), lambda _name, _steps: lambda _done: None)
    return time.perf_counter() - began


def _with_two_threads(job: Job) -> Job:
    """Return a job whose worker, in this process, lets torch use two threads."""

    def run() -> object:
        torch.set_num_threads(2)
        with mock.patch.object(worker.torch, "set_num_threads"):
            return job()

    return run

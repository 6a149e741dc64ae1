"""What a worker does with a few tasks: computes them with one thread and keeps each record."""

import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
import torch

import nce_sim
from nce_sim.errors import InputError
from nce_sim.seeding import DRAWS
from nce_sim.study.shared import Shared
from nce_sim.study.store import Record, Store

TURN = 0.25
"""Seconds after which a worker hands back what it has, with the tasks that it has not begun."""


class Task(Protocol):
    """One point that can be computed anywhere: small, and picklable. `str(task)` names it."""

    @property
    def identity(self) -> str:
        """Hash of everything that affects the record, 32 hexadecimal digits."""

    def compute(self, shared: Shared) -> Record:
        """Return the record. Raises InputError for a point that cannot be computed."""


@dataclass(frozen=True)
class Failure:
    """Why a task has no record: an InputError's message, or the traceback of a mistake in code."""

    identity: str
    task: str
    reason: str
    is_input: bool


@dataclass(frozen=True)
class Outcome:
    """What came of a few tasks: records by identity, tasks not begun, seconds worked."""

    records: dict[str, Record]
    left: list[Task]
    failure: Failure | None
    seconds: float


@dataclass(frozen=True)
class Place:
    """Where records go: a store, and the mark by which a worker knows that it sees that one.

    `versions` are those of the process that asks; `parent` is its id where its death must end the
    worker.
    """

    store: Store
    mark: str
    versions: tuple[str, ...]
    parent: int | None = None


def versions() -> tuple[str, ...]:
    """Return what every worker must have in common for the same bytes."""
    return (
        f"nce-sim {nce_sim.__version__}", f"random generators {DRAWS}",
        f"torch {torch.__version__}", f"numpy {np.__version__}",
    )  # fmt: skip


def work(tasks: Sequence[Task], place: Place) -> Outcome:
    """Compute tasks one after another until `TURN` is over.

    Each record is kept in the store as soon as it is there, if the store's folder is seen from
    here: the death of the worker, or of the process that asked, then costs one task. All records
    are handed back as well, for a store that is not.
    """
    if place.parent is not None:
        _end_with(place.parent)
    begin = time.perf_counter()
    if versions() != place.versions:
        return Outcome({}, [], _other_versions(tasks[0], place), 0.0)
    keeps = place.store.is_here(place.mark)
    shared = place.store.shared if keeps else Shared(None)
    records: dict[str, Record] = {}
    failure = None
    with one_thread():
        for task in tasks:
            if records and time.perf_counter() - begin > TURN:
                break
            try:
                records[task.identity] = (
                    _computed_and_kept(task, shared, place.store) if keeps else task.compute(shared)
                )
            except InputError as reason:
                failure = Failure(task.identity, str(task), str(reason), True)
            except Exception:
                failure = Failure(task.identity, str(task), traceback.format_exc(), False)
            if failure is not None:
                break
    left = list(tasks[len(records) + (failure is not None) :])
    return Outcome(records, left, failure, time.perf_counter() - begin)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread inside the block."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _computed_and_kept(task: Task, shared: Shared, store: Store) -> Record:
    """Return a task's record, which is in the store then if it can be written to.

    It may be there already, kept by a worker that died before it could hand it back. Where it
    cannot be written, the process that asked tries again and tells.
    """
    record = store.load(task.identity)
    if record is None:
        record = task.compute(shared)
        with suppress(InputError):
            store.save(task.identity, record)
    return record


def _other_versions(task: Task, place: Place) -> Failure:
    here = [mine for mine, theirs in zip(versions(), place.versions, strict=True) if mine != theirs]
    asked = [theirs for mine, theirs in zip(versions(), place.versions, strict=True)
             if mine != theirs]  # fmt: skip
    return Failure(
        task.identity, str(task),
        f"a worker has {', '.join(here)} where this process has {', '.join(asked)}: results would "
        f"not be the same everywhere; install the same versions on all workers",
        True,
    )  # fmt: skip


@cache
def _end_with(parent: int) -> None:
    """End this process soon after `parent` is gone; leave Ctrl-C to `parent`."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

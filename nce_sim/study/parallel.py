"""Tasks computed side by side, each record kept at once, whatever happens to workers.

Through joblib: in this process, in processes of this machine (loky), or on an existing Dask
cluster. All compute a task with one thread, so that its record has the same bytes everywhere.

Short tasks go to workers several at a time; a worker keeps each record itself and hands back what
it has after a quarter of a second, so that neither waiting nor a lost worker costs more.
"""

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing

from nce_sim.errors import InputError
from nce_sim.study.pools import Engine, Pool, WorkerLostError, pool_of
from nce_sim.study.store import Store
from nce_sim.study.worker import TURN, Failure, Outcome, Place, Task, versions

__all__ = ["Engine", "Progress", "Task", "run_tasks"]

Progress = Callable[[int, int], None]
"""Told (tasks done, tasks in all), first of all with what was there already."""

LARGEST = 128
"""Tasks that a worker gets at a time, at most."""

KILLS = 3
"""Workers that a task may kill before the run gives up."""

KILLED = (
    f"{KILLS} workers died over it, the last while it was alone: out of memory? Leave it out, or "
    f"give workers more memory; all other records that were finished are kept"
)

POLL = 0.2
"""Seconds between two looks at tasks that another process works on."""


def run_tasks(
    tasks: Iterable[Task], store: Store, engine: Engine | None = None,
    progress: Progress | None = None,
) -> None:  # fmt: skip
    """Compute every task that has no sound record in `store`; afterwards all have one.

    Several processes may do this on one store at once: they share the tasks out among them, and
    each returns when all are done. Of tasks with the same identity one is computed.

    A lost worker costs the tasks that it was computing: they are computed again. Raises
    InputError if a task raises it, if a task kills `KILLS` workers, if the store cannot be written
    to and if the cluster cannot be used; RuntimeError, with the worker's traceback, if a task
    raises anything else. The records that were finished by then are kept.
    """
    mark = store.prepare()
    job = _Job(tasks, store, progress or (lambda _done, _total: None))
    if not job.pending:
        return
    with pool_of(engine or Engine(), Place(store, mark, versions())) as pool:
        try:
            while job.pending:
                job.compute(pool)
                job.wait_for_others()
        finally:
            job.release()


class _Job:
    """Tasks by what has become of them: pending, at work here, at work in another process."""

    def __init__(self, tasks: Iterable[Task], store: Store, progress: Progress) -> None:
        distinct = {task.identity: task for task in tasks}
        self.store, self.progress = store, progress
        self.pending = deque(t for t in distinct.values() if store.load(t.identity) is None)
        self.at_work: dict[str, Task] = {}
        self.elsewhere: list[Task] = []
        self.kills: Counter[str] = Counter()
        self.failure: Failure | None = None
        self.total = len(distinct)
        self.done = self.total - len(self.pending)
        self.size = 1
        self.progress(self.done, self.total)

    def compute(self, pool: Pool) -> None:
        """Compute pending tasks until there are none, or a worker is lost."""
        suspect = self._suspect()
        try:
            chunks = self._chunks(pool.width) if suspect is None else [[suspect]]
            with closing(pool.run(chunks)) as outcomes:
                for outcome in outcomes:
                    self._take(outcome)
        except WorkerLostError as loss:
            self._recover(loss.kills, alone=suspect is not None)
        if self.failure is not None:
            raise _as_error(self.failure)

    def wait_for_others(self) -> None:
        """Wait while only tasks of other processes are open; take over those of dead ones."""
        while self.elsewhere and not self.pending:
            time.sleep(POLL)
            tasks, self.elsewhere = self.elsewhere, []
            for task in tasks:
                if self.store.load(task.identity) is not None:
                    self._count()
                elif self.store.locks.try_acquire(task.identity):
                    self.store.locks.release(task.identity)
                    self.pending.append(task)
                else:
                    self.elsewhere.append(task)

    def release(self) -> None:
        """Let others have what is at work here."""
        for identity in self.at_work:
            self.store.locks.release(identity)
        self.at_work.clear()

    def _chunks(self, width: int) -> Iterator[Sequence[Task]]:
        """Yield what a worker gets next; read by joblib's threads, one at a time."""
        while self.failure is None and self.pending:
            size = min(self.size, math.ceil(len(self.pending) / (2 * width)))
            chunk: list[Task] = []
            while self.pending and len(chunk) < size:
                task = self.pending.popleft()
                if self._claim(task):
                    chunk.append(task)
                    if self.kills[task.identity]:
                        break
            if chunk:
                yield chunk

    def _claim(self, task: Task) -> bool:
        """Tell whether this process shall compute a task; others then leave it alone."""
        if not self.store.locks.try_acquire(task.identity):
            self.elsewhere.append(task)
            return False
        if self.store.load(task.identity) is not None:  # another process has just finished it
            self.store.locks.release(task.identity)
            self._count()
            return False
        self.at_work[task.identity] = task
        return True

    def _take(self, outcome: Outcome) -> None:
        """Keep what a worker hands back."""
        for identity, record in outcome.records.items():
            if self.store.load(identity) is None:
                self.store.save(identity, record)
            self._finish(identity)
            self._count()
        for task in reversed(outcome.left):
            self._finish(task.identity)
            self.pending.appendleft(task)
        if outcome.failure is not None:
            self._finish(outcome.failure.identity)
            self.failure = self.failure or outcome.failure
        if outcome.records:
            fitting = TURN * len(outcome.records) / max(outcome.seconds, 1e-9)
            self.size = max(1, min(int(fitting), 4 * self.size, LARGEST))

    def _suspect(self) -> Task | None:
        """Return a task to be computed with no other beside it: it may be what kills workers."""
        for task in list(self.pending):
            if self.kills[task.identity] >= KILLS - 1:
                self.pending.remove(task)
                if self._claim(task):
                    return task
        return None

    def _recover(self, kills: int, *, alone: bool) -> None:
        """Put back what was at work when a worker was lost, but for what it had finished.

        Nobody knows which of the tasks was to blame, until one was alone.
        """
        self.size = 1
        for identity, task in list(self.at_work.items()):
            self._finish(identity)
            if self.store.load(identity) is not None:
                self._count()
                continue
            self.pending.appendleft(task)
            self.kills[identity] += kills
            if not alone:
                self.kills[identity] = min(self.kills[identity], KILLS - 1)
            elif self.kills[identity] >= KILLS:
                self.failure = Failure(identity, str(task), KILLED, True)

    def _finish(self, identity: str) -> None:
        self.at_work.pop(identity, None)
        self.store.locks.release(identity)

    def _count(self) -> None:
        self.done += 1
        self.progress(self.done, self.total)


def _as_error(failure: Failure) -> Exception:
    if failure.is_input:
        return InputError(f"{failure.task}: {failure.reason}")
    return RuntimeError(f"{failure.task} failed:\n{failure.reason}")

"""Where chunks of tasks are computed: here, in processes of this machine, or on a Dask cluster."""

import asyncio
import os
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from joblib import Parallel, delayed, parallel_config
from joblib._dask import DaskDistributedBackend

from nce_sim.errors import InputError
from nce_sim.study.worker import Outcome, Place, Task, work

Chunks = Iterable[Sequence[Task]]

PATIENCE = 10
"""Seconds in which a Dask cluster must answer."""

WAIT_FOR_WORKERS = 60
"""Seconds in which it must then have a worker: lost ones may be on their way back."""


@dataclass(frozen=True)
class Engine:
    """Who computes: `workers` processes of one thread each, or the Dask cluster at an address.

    One worker without a cluster is this process itself. A cluster has its own number of workers.
    """

    workers: int = 1
    dask: str | None = None

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise InputError(f"{self.workers} workers: give 1 or more")


class WorkerLostError(Exception):
    """Workers died over chunks that are not back; `kills` of them at least over the same one."""

    def __init__(self, kills: int) -> None:
        super().__init__(kills)
        self.kills = kills


@dataclass(frozen=True)
class Pool:
    """`run` yields the outcomes of chunks, as they come; `width` is the number of workers.

    `run` reads chunks as workers become free, two for each worker ahead, and raises
    WorkerLostError.
    """

    width: int
    run: Callable[[Chunks], Generator[Outcome, None, None]]


@contextmanager
def pool_of(engine: Engine, place: Place) -> Iterator[Pool]:
    """Provide the workers of an engine. Raises InputError for a cluster that cannot be used."""
    if engine.dask is not None:
        with _client(engine.dask) as client:
            backend = _DaskBackend(client=client, wait_for_workers_timeout=WAIT_FOR_WORKERS)
            make = partial(Parallel, backend=backend)
            yield Pool(sum(client.ncores().values()), partial(_through_joblib, make, place))
    elif engine.workers == 1:
        yield Pool(1, partial(_here, place))
    else:
        make = partial(_processes, engine.workers)
        place = replace(place, parent=os.getpid())
        yield Pool(engine.workers, partial(_through_joblib, make, place))


def _here(place: Place, chunks: Chunks) -> Generator[Outcome, None, None]:
    yield from (work(chunk, place) for chunk in chunks)


def _processes(workers: int, **settings: Any) -> Parallel:
    """Return joblib over processes that were started for one thread each."""
    with parallel_config(backend="loky", n_jobs=workers, inner_max_num_threads=1):
        return Parallel(**settings)


def _through_joblib(
    make: Callable[..., Parallel], place: Place, chunks: Chunks
) -> Generator[Outcome, None, None]:
    parallel = make(batch_size=1, pre_dispatch="2*n_jobs", return_as="generator_unordered")
    outcomes = None
    try:
        outcomes = parallel(delayed(work)(list(chunk), place) for chunk in chunks)
        yield from (outcome for outcome in outcomes)  # so that leaving early ends them below
    except BrokenExecutor as reason:
        raise WorkerLostError(1) from reason
    except _killed_workers() as reason:
        raise WorkerLostError(2) from reason
    finally:
        if outcomes is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                outcomes.close()


class _DaskBackend(DaskDistributedBackend):
    """joblib's backend, but for two of its habits."""

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return at least 2: with one worker, joblib would compute in this process instead."""
        return max(2, super().effective_n_jobs(n_jobs))

    def submit(self, func: Any, callback: Any = None) -> Any:
        """Submit a chunk, and tell if it killed its workers: joblib would wait for it for ever."""
        future = super().submit(func, callback)

        def report(done: Any) -> None:
            if (reason := done.exception()) is not None:
                callback(reason)

        future.add_done_callback(report)
        return future


def _killed_workers() -> tuple[type[Exception], ...]:
    """Return what Dask raises for a task that outlived no worker, if Dask is there."""
    try:
        from distributed import KilledWorker
    except ImportError:
        return ()
    return (KilledWorker,)


@contextmanager
def _client(address: str) -> Iterator[Any]:
    """Connect to a cluster that has at least one worker."""
    try:
        from distributed import Client
    except ImportError as reason:
        raise InputError(
            "a Dask cluster needs packages that are not installed: "
            "pip install 'nce-sim[dask]', or leave the address out"
        ) from reason
    try:
        asyncio.run(_knock(address))  # for a client that got no answer does not go quietly
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as reason:
        raise InputError(
            f"no Dask scheduler answers at {address}: {str(reason) or 'nothing came back'}; give "
            f"the address that `dask scheduler` prints, such as tcp://10.0.0.1:8786"
        ) from reason
    with client:
        try:
            client.wait_for_workers(1, timeout=WAIT_FOR_WORKERS)
        except TimeoutError as reason:
            raise InputError(
                f"the Dask cluster at {address} has no worker after {WAIT_FOR_WORKERS} s: "
                f"start one with `dask worker {address}`"
            ) from reason
        yield client


async def _knock(address: str) -> None:
    """Raise OSError or ValueError unless a Dask process answers at an address."""
    from distributed import Security
    from distributed.comm import connect

    arguments = Security().get_connection_args("client")
    comm = await asyncio.wait_for(connect(address, timeout=PATIENCE, **arguments), PATIENCE + 1)
    await comm.close()

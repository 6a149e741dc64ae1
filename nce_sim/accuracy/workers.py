"""Blocks of images side by side: each is computed by one thread, as many at once as torch uses.

Torch can also share each operation among threads, but then all of them wait for the slowest after
every operation, and one alone draws the random numbers. One thread a block needs no waiting, and a
block's result cannot depend on the number of threads.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Thread
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    job: Callable[[Item], Result], items: Iterable[Item], device: str = "cpu"
) -> Generator[Result, None, None]:
    """Yield `job(item)` for each item, in order; a few items are worked on ahead.

    Close the iterator where it is not read to its end (`contextlib.closing`): all threads have
    ended then. Torch's number of threads stays as it is for everyone else. On a GPU, items are
    computed one after another.
    """
    threads = torch.get_num_threads()
    if threads == 1 or torch.device(device).type != "cpu":
        yield from map(job, items)
        return
    pool = ThreadPoolExecutor(threads, initializer=_compute_alone, initargs=(threads,))
    try:
        pending: deque[Future[Result]] = deque()
        for item in items:
            pending.append(pool.submit(job, item))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _compute_alone(threads: int) -> None:
    """Make torch compute with this thread alone whatever this thread asks of it.

    `set_num_threads` acts on its caller, and on threads that meet torch for the first time later:
    for these, another thread that is new to torch sets the number back.
    """
    torch.get_num_threads()  # takes the number over that holds for new threads; only once
    torch.set_num_threads(1)
    others = Thread(target=torch.set_num_threads, args=(threads,))
    others.start()
    others.join()

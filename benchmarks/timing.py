"""What the benchmarks share: a plain forward pass, and timing jobs in alternation."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch


def plain(module: torch.nn.Module, images: torch.Tensor, channels_last: bool = False) -> None:
    """Run the module itself in float32, 64 images at a time."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    module = module.to(memory_format=layout)
    with torch.inference_mode():
        for batch in images.split(64):
            module(batch.contiguous(memory_format=layout))


def alternate(jobs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds that each job took in each round, after a round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for counts in range(-1, rounds):
        for name, job in jobs.items():
            began = time.perf_counter()
            job()
            if counts >= 0:
                times[name].append(time.perf_counter() - began)
    return times


def spread(values: Sequence[float]) -> str:
    """Return the median with the smallest and the largest value."""
    return f"{statistics.median(values):.3g} [{min(values):.3g}, {max(values):.3g}]"

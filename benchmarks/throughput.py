"""Time ranking and faulty inference against a plain forward pass of the same network.

    python benchmarks/throughput.py [--images 512] [--rounds 7]

Prints the median over alternating rounds of each ratio. "plain" is the module itself in float32,
default memory format, batch 64; "plain channels-last" the same in channels-last.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

import nce_sim as nce
from nce_sim.accuracy.evaluate import Variant, predict_variants
from nce_sim.workload.models import load_module


def plain(module: torch.nn.Module, images: torch.Tensor, channels_last: bool) -> None:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    module = module.to(memory_format=layout)
    with torch.inference_mode():
        for batch in images.split(64):
            module(batch.contiguous(memory_format=layout))


def seconds(job: Callable[[], object]) -> float:
    began = time.perf_counter()
    job()
    return time.perf_counter() - began


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--images", type=int, default=512)
    options.add_argument("--rounds", type=int, default=7)
    arguments = options.parse_args()
    network = nce.load_model("allcnn-fashion")
    module = load_module("allcnn-fashion")
    data = nce.load_data("fashion-mnist", "test").first(arguments.images)
    images, labels = data.images, data.labels
    everything = nce.rank(network, None, None, "random").split(1.0)
    dropout = [Variant(everything, nce.Dropout(0.1))]
    means = nce.mean_activation(network, images[:64])
    noise = [Variant(everything, nce.GaussianNoise(1.0, means))]

    def evaluate(variants: list[Variant], precision: str) -> None:
        predict_variants(network, images, variants, precision=precision)

    jobs: dict[str, Callable[[], object]] = {
        "plain": lambda: plain(module, images, channels_last=False),
        "plain channels-last": lambda: plain(module, images, channels_last=True),
        "LRP float32": lambda: nce.rank(network, images, labels),
        "LRP mixed": lambda: nce.rank(network, images, labels, precision="mixed"),
        "gradient": lambda: nce.rank(network, images, labels, "gradient"),
        "clean float32": lambda: evaluate([], "float32"),
        "clean + dropout float32": lambda: evaluate(dropout, "float32"),
        "clean + noise float32": lambda: evaluate(noise, "float32"),
        "clean bfloat16": lambda: evaluate([], "bfloat16"),
        "clean + dropout bfloat16": lambda: evaluate(dropout, "bfloat16"),
        "clean + noise bfloat16": lambda: evaluate(noise, "bfloat16"),
    }
    for job in jobs.values():
        job()
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(arguments.rounds):
        for name, job in jobs.items():
            times[name].append(seconds(job))
    reference = statistics.median(times["plain channels-last"])
    print(f"{'job':<26} {'images/s':>9} {'plain channels-last passes':>27}")
    for name, found in times.items():
        median = statistics.median(found)
        print(f"{name:<26} {arguments.images / median:>9.0f} {median / reference:>27.2f}")
    for precision in ("float32", "bfloat16"):
        clean = statistics.median(times[f"clean {precision}"])
        for fault in ("dropout", "noise"):
            both = statistics.median(times[f"clean + {fault} {precision}"])
            print(f"{fault} in {precision}: {clean / (both - clean):.2f} of clean throughput")


if __name__ == "__main__":
    main()

"""Time ranking against a plain forward pass of the same network.

    python benchmarks/throughput.py [--images 512] [--rounds 7]

Prints the median over alternating rounds of each ratio. "plain" is the module itself in float32,
default memory format, batch 64; "plain channels-last" the same in channels-last. Inference with
faults has a benchmark of its own, `faulty_inference.py`.
"""

import argparse
import statistics

from timing import alternate, plain

import nce_sim as nce
from nce_sim.workload.models import load_module


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--images", type=int, default=512)
    options.add_argument("--rounds", type=int, default=7)
    arguments = options.parse_args()
    network = nce.load_model("allcnn-fashion")
    module = load_module("allcnn-fashion")
    data = nce.load_data("fashion-mnist", "test").first(arguments.images)
    images, labels = data.images, data.labels
    jobs = {
        "plain": lambda: plain(module, images),
        "plain channels-last": lambda: plain(module, images, channels_last=True),
        "LRP float32": lambda: nce.rank(network, images, labels),
        "LRP mixed": lambda: nce.rank(network, images, labels, precision="mixed"),
        "gradient": lambda: nce.rank(network, images, labels, "gradient"),
    }
    times = alternate(jobs, arguments.rounds)
    reference = statistics.median(times["plain channels-last"])
    print(f"{'job':<26} {'images/s':>9} {'plain channels-last passes':>27}")
    for name, found in times.items():
        median = statistics.median(found)
        print(f"{name:<26} {arguments.images / median:>9.0f} {median / reference:>27.2f}")


if __name__ == "__main__":
    main()

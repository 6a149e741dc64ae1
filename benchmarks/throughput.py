"""Time ranking against a plain forward pass of the same network.

    python benchmarks/throughput.py [--model allcnn-fashion] [--images 512] [--rounds 7]

All jobs take turns; each ratio to "plain channels-last" is taken within a round, and its median is
printed with the smallest and the largest. "plain" is the module itself in float32, default memory
format, batch 64; "plain channels-last" the same in channels-last. "LRP" is all that grows with the
number of images, "rank" a whole ranking, with preparing the weights and sorting the neurons: for
VGG-16 that takes seconds, whatever the number of images. Models without data of their own look at
random images. How much of the order reduced precision keeps is in `ranking_precision.py`, and
inference with faults in `faulty_inference.py`.
"""

import argparse
import statistics

import torch
from timing import alternate, plain, spread

import nce_sim as nce
from nce_sim.resilience.ranking import sum_over_blocks
from nce_sim.resilience.relevance import PRECISIONS, RULES, RelevancePropagation
from nce_sim.workload.models import load_module


def pictures(network: nce.Workload, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images and labels for `network`."""
    if network.name == "allcnn-fashion":
        data = nce.load_data("fashion-mnist", "test").first(count)
        return data.images[:], data.labels
    random = torch.Generator().manual_seed(0)
    images = torch.rand(count, *network.input_shape, generator=random)
    return images, torch.randint(network.output.outputs, (count,), generator=random)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--model", default="allcnn-fashion")
    options.add_argument("--images", type=int, default=512)
    options.add_argument("--rounds", type=int, default=7)
    arguments = options.parse_args()
    network, module = nce.load_model(arguments.model), load_module(arguments.model)
    images, labels = pictures(network, arguments.images)
    jobs = {
        "plain": lambda: plain(module, images),
        "plain channels-last": lambda: plain(module, images, channels_last=True),
        "rank gradient": lambda: nce.rank(network, images, labels, "gradient"),
        "rank LRP float32": lambda: nce.rank(network, images, labels),
    }
    for precision in PRECISIONS:
        scores = RelevancePropagation(network, RULES["lrp"], precision)
        jobs[f"LRP {precision}"] = lambda scores=scores: sum_over_blocks(
            network, scores, images, labels, "cpu", None
        )
    times = alternate(jobs, arguments.rounds)
    print(f"{torch.get_num_threads()} threads, {arguments.rounds} rounds, {len(images)} images")
    print(f"{'job':<20} {'images/s':>9}  plain channels-last passes")
    for name, found in times.items():
        reference = times["plain channels-last"]
        ratios = [one / other for one, other in zip(found, reference, strict=True)]
        print(f"{name:<20} {len(images) / statistics.median(found):>9.0f}  {spread(ratios)}")


if __name__ == "__main__":
    main()

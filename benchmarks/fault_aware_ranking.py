"""Compare the fault-aware ranking with LRP and the gradient under the fault that it was made for.

    python benchmarks/fault_aware_ranking.py [--ranked 2000] [--images 1000]

All rankings see the same training images, all splits the same test images and the same faults.
Differences are paired, with 95 % intervals by the normal approximation over images.
"""

import argparse
from math import sqrt

import numpy as np

import nce_sim as nce
from nce_sim.accuracy.evaluate import Variant, predict_variants

FRACTIONS = (0.2, 0.4, 0.6, 0.8)
METHODS = ("fault-aware", "lrp", "gradient")


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--ranked", type=int, default=2000)
    options.add_argument("--images", type=int, default=1000)
    arguments = options.parse_args()
    network = nce.load_model("allcnn-fashion")
    train = nce.load_data("fashion-mnist", "ranking").first(arguments.ranked)
    test = nce.load_data("fashion-mnist", "test").first(arguments.images)
    labels = test.labels.numpy()
    means = nce.mean_activation(network, train.images)
    common = {
        method: nce.rank(network, train.images, train.labels, method) for method in METHODS[1:]
    }
    print(f"{arguments.ranked} training images, {arguments.images} test images; accuracy in %")
    for fault in (nce.Dropout(0.5), nce.GaussianNoise(3.0, means)):
        aware = nce.rank(network, train.images, train.labels, "fault-aware", fault=fault)
        rankings = {"fault-aware": aware, **common}
        cases = [(method, fraction) for method in METHODS for fraction in FRACTIONS]
        variants = [Variant(rankings[method].split(fraction), fault) for method, fraction in cases]
        found = predict_variants(network, test.images, variants)
        right = {
            case: found.faulty[row, 0] == labels for row, case in enumerate(cases)
        }  # fmt: skip
        print(f"{fault}; fault-free {100 * np.mean(found.clean == labels):.1f}")
        for method in METHODS:
            cells = [f"{100 * right[method, fraction].mean():5.1f}" for fraction in FRACTIONS]
            print(f"  {method:12}", "  ".join(cells))
        for fraction in FRACTIONS:
            change = right["fault-aware", fraction].astype(int) - right["lrp", fraction]
            half = 196 * change.std() / sqrt(len(change))
            print(f"  at {fraction:g}: {100 * change.mean():+.1f} +- {half:.1f} points over LRP")


if __name__ == "__main__":
    main()

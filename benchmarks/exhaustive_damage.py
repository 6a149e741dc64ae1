"""Hold every ranking against ground truth: each neuron of the small network struck in turn.

    python benchmarks/exhaustive_damage.py [--images 1000]

Rankings see all 1,000 training images, the injection the first of them. Rank correlations over all
2,218 neurons. With --nodes, noise is also taken with other numbers of displacements, to see how
near the usual number comes to many.
"""

import argparse
import time

import numpy as np

import nce_sim as nce
from nce_sim.accuracy.exhaustive import MEASURES, NODES
from nce_sim.accuracy.half_normal import MOST_POINTS

METHODS = ("lrp", "gradient", "gradient_x_activation", "activation", "fault-aware", "random")


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--images", type=int, default=1000, help="that meet the faults")
    options.add_argument("--nodes", action="store_true", help="vary the number of displacements")
    arguments = options.parse_args()
    network, train = nce.load_model("cnn-digits"), nce.load_data("digits", "train")
    struck = train.first(arguments.images)
    means = nce.mean_activation(network, train.images)
    if arguments.nodes:
        vary_nodes(network, struck, nce.GaussianNoise(3.0, means))
        return
    for fault in (nce.Dropout(0.5), nce.GaussianNoise(3.0, means)):
        began = time.process_time()
        truth = nce.exhaustive_damage(network, struck.images, struck.labels, fault)
        print(f"{fault}: {len(struck)} images, {time.process_time() - began:.0f} s of one core")
        for measure in MEASURES:
            values = np.concatenate([each.ravel() for each in getattr(truth, measure).values()])
            shares = [f"{np.mean(chosen):.1%}" for chosen in (values == 0, values < 0)]
            print(
                f"  {measure}: mean {values.mean():.3g}, largest {values.max():.3g}, "
                f"zero {shares[0]}, negative {shares[1]}"
            )
        for method in METHODS:
            ranking = nce.rank(
                network,
                None if method == "random" else train.images,
                None if method == "random" else train.labels,
                method,
                fault=fault if method == "fault-aware" else None,
            )
            found = [
                f"{nce.rank_correlation(ranking, truth.ranking(measure), kind):+.3f}"
                for kind in ("spearman", "kendall")
                for measure in MEASURES
            ]
            print(f"  {method:22} Spearman {' '.join(found[:3])}   Kendall {' '.join(found[3:])}")
        for layer in network.neuron_layers:
            print(f"  {layer.name}: mean loss {truth.loss[layer.name].mean():.3g}")


def vary_nodes(network: nce.Workload, struck: nce.Dataset, fault: nce.GaussianNoise) -> None:
    """Print how far fewer displacements are from the most."""
    found = {
        nodes: nce.exhaustive_damage(network, struck.images, struck.labels, fault, nodes=nodes)
        for nodes in (1, 2, NODES, 4, MOST_POINTS)
    }
    for nodes, damage in found.items():
        for measure in MEASURES:
            values, best = (
                np.concatenate([each.ravel() for each in getattr(those, measure).values()])
                for those in (damage, found[MOST_POINTS])
            )
            away = np.linalg.norm(values - best) / np.linalg.norm(best)
            alike = nce.rank_correlation(
                damage.ranking(measure), found[MOST_POINTS].ranking(measure)
            )
            print(f"{nodes} nodes, {measure}: {away:.2%} away, Spearman {alike:.4f}")


if __name__ == "__main__":
    main()

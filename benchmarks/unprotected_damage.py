"""Why a ranking wins under one fault and loses under another: what it leaves unprotected.

    python benchmarks/unprotected_damage.py [--images 2000]

To first order a fault that moves a neuron's output by d changes the loss by d x dLoss/dy. Dropout
moves it by its activation, noise by sigma x the layer's mean activation. The script prints, for
splits by LRP and by gradient, which share of the network's summed squared damage falls on
unprotected neurons, with mean |dLoss/dy| and mean |y| over training images.
"""

import argparse

import numpy as np

import nce_sim as nce

FRACTIONS = (0.2, 0.4, 0.6, 0.8)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--images", type=int, default=2000)
    arguments = options.parse_args()
    network = nce.load_model("allcnn-fashion")
    data = nce.load_data("fashion-mnist", "ranking").first(arguments.images)
    rankings = {
        method: nce.rank(network, data.images, data.labels, method)
        for method in ("lrp", "gradient", "activation")
    }
    slope, activation = rankings["gradient"].relevance, rankings["activation"].relevance
    damage = {
        "noise": {name: (values * activation[name].mean()) ** 2 for name, values in slope.items()},
        "dropout": {name: (values * activation[name]) ** 2 for name, values in slope.items()},
    }
    print("share of the squared first-order damage on unprotected neurons")
    for fault, by_layer in damage.items():
        total = sum(values.sum() for values in by_layer.values())
        for method in ("lrp", "gradient"):
            shares = []
            for fraction in FRACTIONS:
                unprotected = rankings[method].split(fraction).unprotected
                struck = sum(values[unprotected[name]].sum() for name, values in by_layer.items())
                shares.append(f"{fraction:.1f}: {struck / total:8.3%}")
            print(f"{fault:<8} {method:<9}", "  ".join(shares))
    print("LRP's unprotected neurons at 0.4, relative to their layer's mean")
    unprotected = rankings["lrp"].split(0.4).unprotected
    for name, mask in unprotected.items():
        if mask.any():
            ratios = [
                np.mean(each[name][mask]) / np.mean(each[name]) for each in (slope, activation)
            ]
            print(f"{name:<8} |dLoss/dy| {ratios[0]:.2f}   |y| {ratios[1]:.2f}")


if __name__ == "__main__":
    main()

"""How much of the order of neurons reduced precision keeps.

    python benchmarks/ranking_precision.py [--images 1024]

Ranks the bundled All-CNN-C by LRP over the same training images in float32, mixed and bf16, and
prints Spearman correlations with float32, over all neurons and within each layer. Beside them is
that of float32 rankings from the first and from the second half of the images: what the choice of
images does.
"""

import argparse

import nce_sim as nce


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--images", type=int, default=1024)
    count = options.parse_args().images
    network = nce.load_model("allcnn-fashion")
    data = nce.load_data("fashion-mnist", "ranking").first(count)
    float32, mixed, bf16 = (
        nce.rank(network, data.images, data.labels, precision=precision)
        for precision in ("float32", "mixed", "bf16")
    )
    first, second = (
        nce.rank(network, data.images[half], data.labels[half])
        for half in (slice(count // 2), slice(count // 2, count))
    )
    pairs = {
        "mixed": (float32, mixed), "bf16": (float32, bf16), "other images": (first, second)
    }  # fmt: skip
    within = {name: nce.layer_correlations(*pair) for name, pair in pairs.items()}
    print(f"{'Spearman':<10}" + "".join(f"{name:>14}" for name in pairs))
    whole = "".join(f"{nce.rank_correlation(*pair):>14.7f}" for pair in pairs.values())
    print(f"{'all':<10}{whole}")
    for layer in float32.relevance:
        found = (correlations[layer] for correlations in within.values())
        cells = (f"{'one value' if each is None else f'{each:.7f}':>14}" for each in found)
        print(f"{layer:<10}" + "".join(cells))


if __name__ == "__main__":
    main()

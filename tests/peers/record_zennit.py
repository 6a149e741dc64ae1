"""Record zennit's relevance of the small networks into tests/data/zennit.npz.

    pip install --no-deps zennit && python tests/peers/record_zennit.py
    python tests/peers/record_zennit.py --compare allcnn-fashion     # compares, records nothing

zennit imports torchvision for models that are not needed here: a stand-in takes its place.
"""

import argparse
import sys
import types
from pathlib import Path

import numpy as np
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))


class StandIn(types.ModuleType):
    """A module in which every name is an empty class."""

    def __getattr__(self, name: str) -> type:
        """Return an empty class, but none of Python's own names."""
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


PLACES = ("torchvision", "torchvision.models", "torchvision.models.resnet", "torchvision.ops")
for place in PLACES:
    sys.modules[place] = StandIn(place)
    sys.modules[place].__path__ = []
for place in PLACES[1:]:
    parent, _, name = place.rpartition(".")
    setattr(sys.modules[parent], name, sys.modules[place])

import small_networks  # noqa: E402
from zennit.composites import LayerMapComposite  # noqa: E402
from zennit.rules import Norm, Pass, ZPlus  # noqa: E402


def relevance(module: nn.Sequential, images: Tensor, labels: Tensor) -> list[np.ndarray]:
    """Return zennit's relevance, summed over the images, of every ReLU's and pooling's output."""
    composite = LayerMapComposite(
        [
            (nn.ReLU, Pass()),
            (nn.AvgPool2d, Norm(stabilizer=1e-12)),
            (nn.AdaptiveAvgPool2d, Norm(stabilizer=1e-12)),
            (nn.Conv2d, ZPlus(stabilizer=1e-12, zero_params="bias")),
            (nn.Linear, ZPlus(stabilizer=1e-12, zero_params="bias")),
        ]
    )
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: tuple, output: Tensor) -> None:
        if output.requires_grad:
            output.retain_grad()
            kept.append(output)

    with composite.context(module) as modified:
        handles = [part.register_forward_hook(keep) for part in module if isinstance(part, nn.ReLU)]
        output = modified(images.clone().requires_grad_())
        output.backward(nn.functional.one_hot(labels, output.shape[1]).float())
    for handle in handles:
        handle.remove()
    return [tensor.grad.sum(0).numpy() for tensor in kept]


def compare(model: str, count: int) -> None:
    """Print the largest deviation of each layer, as a share of the layer's maximum."""
    import nce_sim as nce
    from nce_sim.workload.models import load_description, load_module

    description, _ = load_description(model)
    module = load_module(model)
    data = nce.load_data(description.data, "ranking").first(count)
    theirs = relevance(module, data.images, data.labels)
    ours = nce.rank(nce.load_model(model), data.images, data.labels).relevance
    for (name, mine), peer in zip(ours.items(), theirs, strict=False):
        mean = peer / count
        print(f"{name}: {np.abs(mine - mean).max() / np.abs(mean).max():.2e} of the maximum")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--compare", metavar="MODEL")
    arguments = options.parse_args()
    if arguments.compare:
        compare(arguments.compare, 64)
        return
    images, labels = small_networks.images(20), small_networks.labels(20)
    recorded = {}
    for name in ("all_convolutional", "with_pooling"):
        module = getattr(small_networks, name)()
        for number, values in enumerate(relevance(module, images, labels)):
            recorded[f"{name}/{number}"] = values.astype(np.float32)
    path = Path(__file__).parents[1] / "data" / "zennit.npz"
    np.savez_compressed(path, **recorded)
    print({name: values.shape for name, values in recorded.items()}, path)


if __name__ == "__main__":
    main()

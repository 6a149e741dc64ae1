"""Compare the fault-aware ranking for bit flips of lanes with LRP under those flips, in hardware.

    python benchmarks/hardware_aware_ranking.py small
    python benchmarks/hardware_aware_ranking.py allcnn [--ranked 500] [--images 300] [--rate 3e-8]

`small`: rank correlation (Spearman) of rankings with what every flip of every bit of every stored
output does to the answers of a network of 1,066 neurons, trained here on 8 x 8 images: the share of
test images whose right answer one flip loses. `allcnn`: accuracy of allcnn-fashion on nce-28nm
where 60 % of the neurons are unprotected, with transient flips at one site of the PEs; all
rankings see the same training images. Splits move neurons to other lanes and times, so that flips
of one split are not those of another. Differences are paired by image, with 95 % intervals by the
normal approximation.
"""

import argparse
from math import sqrt

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional

import nce_sim as nce
from nce_sim.workload.execute import PRECISION_OF_FORMAT, forward, prepare
from nce_sim.workload.formats import FORMATS

METHODS = ("lrp", "gradient", "gradient_x_activation")
AT_ONCE = 64
"""Neurons whose flips are run at once."""


def trained() -> nn.Module:
    """Return a network of 8 x 8 images, trained for some seconds on the ranking images."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(),
        nn.Conv2d(12, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    data = nce.load_data("fashion-mnist", "ranking").first(5000)
    inputs = shrunk(data.images)
    steps = torch.optim.Adam(net.parameters(), 5e-3)
    for _ in range(40):
        for start in range(0, len(inputs), 100):
            part = slice(start, start + 100)
            steps.zero_grad()
            functional.cross_entropy(net(inputs[part]), data.labels[part]).backward()
            steps.step()
    return net.eval()


def shrunk(images: torch.Tensor) -> torch.Tensor:
    return functional.avg_pool2d(images, images.shape[-1] // 8)


def machine_in(number_format: str) -> nce.Machine:
    """Return a bundled machine in a number format."""
    machine = nce.load_machine("nce-int8" if number_format == "int8" else "nce-28nm")
    config = machine.config.model_copy(update={"number_format": number_format})
    return machine.model_copy(update={"config": config})


def lost_answers(
    network: nce.Workload, images: torch.Tensor, labels: torch.Tensor, number_format: str,
    calibration: nce.Calibration,
) -> np.ndarray:  # fmt: skip
    """Return, for each neuron, the share of (image, bit) whose flip loses a right answer."""
    ran = prepare(network, PRECISION_OF_FORMAT[number_format], calibration=calibration)
    form, layers, kept, found = ran.format, list(network.layers), {}, []

    def keep(layer, _, output):
        kept[layer.name] = output.clone()
        return output

    with torch.inference_mode():
        right = forward(ran, ran.images(images), hook=keep).flatten(1).argmax(1) == labels
        for place, layer in enumerate(layers):
            if not layer.has_neurons:
                continue
            output, lost = kept[layer.name], np.zeros(layer.outputs)
            # What int8 reads out as 32 bits is struck in the byte of the neuron's number modulo 4.
            read_out = ran.is_read_out(layer)
            word_form = FORMATS["fp32"] if read_out else form
            words = word_form.encode(output.flatten(1).float().numpy())
            shift = np.arange(layer.outputs) % 4 * (8 if read_out else 0)
            for bit in range(form.bits):
                flips = np.uint32(1) << (shift + bit).astype(np.uint32)
                values = word_form.decode(words ^ flips)
                after = torch.from_numpy(np.ascontiguousarray(values)).to(output.dtype)
                for start in range(0, layer.outputs, AT_ONCE):
                    mine = torch.arange(start, min(start + AT_ONCE, layer.outputs))
                    flat = output.flatten(1)[:, None].repeat(1, len(mine), 1)
                    flat[:, torch.arange(len(mine)), mine] = after[:, mine]
                    ends = flat.reshape(-1, *output.shape[1:])
                    if layers[place + 1 :]:
                        ends = forward(ran, ends, layers[place + 1 :])
                    ends = ends.flatten(1).float()
                    wrong = ends.argmax(1) != labels.repeat_interleave(len(mine))
                    wrong |= ~ends.isfinite().all(1)
                    wrong = wrong.view(len(images), -1) & right[:, None]
                    lost[mine.numpy()] += wrong.float().mean(0).numpy() / form.bits
            found.append(lost)
    return np.concatenate(found)


def small() -> None:
    train = nce.load_data("fashion-mnist", "ranking").first(1000)
    test = nce.load_data("fashion-mnist", "test").first(160)
    inputs, tested = shrunk(train.images), shrunk(test.images).contiguous()
    network = nce.Workload.from_module(trained(), inputs[:1])
    calibration = nce.calibrate(network, inputs)
    rankings = {each: nce.rank(network, inputs, train.labels, each) for each in METHODS}
    rankings["random"] = nce.rank(network, None, None, "random")
    for number_format in ("int8", "bf16", "fp16"):
        truth = lost_answers(network, tested, test.labels, number_format, calibration)
        site = nce.Site("unprotected", "output")
        flips = nce.expected_damage(
            nce.Fault(site, nce.Transient(1e-6), nce.BitFlip()), network,
            machine_in(number_format), calibration=calibration,
        )  # fmt: skip
        aware = nce.rank(network, inputs, train.labels, "fault-aware", fault=flips)
        # The truth is of a flip that has struck: whatever the chance of that.
        given_a_hit = {
            name: values / flips.chances[name] for name, values in aware.relevance.items()
        }
        scores = {name: ranking.relevance for name, ranking in rankings.items()}
        scores["fault-aware"] = given_a_hit
        print(f"{number_format}: a flip loses {100 * truth.mean():.1f} % of the answers")
        for name, values in scores.items():
            flat = np.concatenate([each.ravel() for each in values.values()])
            print(f"  {name:22} {spearmanr(flat, truth).statistic:+.3f}")


def allcnn(ranked: int, images: int, rates: list[float], component: str) -> None:
    network, machine = nce.load_model("allcnn-fashion"), nce.load_machine("nce-28nm")
    train = nce.load_data("fashion-mnist", "ranking").first(ranked)
    test = nce.load_data("fashion-mnist", "test").first(images)
    site = nce.Site("unprotected", component)

    def flips(rate: float) -> nce.Fault:
        return nce.Fault(site, nce.Transient(rate), nce.BitFlip())

    print(f"{ranked} training images, {images} test images, flips at {site}", flush=True)
    aware = nce.expected_damage(flips(rates[0]), network, machine)
    rankings = {
        "lrp": nce.rank(network, train.images, train.labels, "lrp"),
        "fault-aware": nce.rank(network, train.images, train.labels, "fault-aware", fault=aware),
    }
    for rate in rates:
        right = {}
        for name, ranking in rankings.items():
            run = nce.simulate(network, machine, ranking.split(0.6))
            found = nce.inject(network, test.images, test.labels, run.schedule, flips(rate), seed=1)
            right[name] = found.right[0].astype(int)
            print(
                f"{rate:g} {name:12} {100 * right[name].mean():5.1f} % (fault-free "
                f"{100 * found.fault_free.value:.1f}, {found.inferences.struck.mean():.1f} hits "
                f"an inference)",
                flush=True,
            )
        change = right["fault-aware"] - right["lrp"]
        half = 196 * change.std() / sqrt(len(change))
        print(f"{rate:g} over LRP {100 * change.mean():+.1f} +- {half:.1f} points", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("what", choices=("small", "allcnn"))
    options.add_argument("--ranked", type=int, default=500)
    options.add_argument("--images", type=int, default=300)
    options.add_argument("--rate", type=float, nargs="+", default=[3e-8])
    options.add_argument("--site", default="output", help="output, lane or accumulator")
    arguments = options.parse_args()
    if arguments.what == "small":
        small()
    else:
        allcnn(arguments.ranked, arguments.images, arguments.rate, arguments.site)


if __name__ == "__main__":
    main()

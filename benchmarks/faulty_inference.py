"""Time inference with faults in every neuron, ours and that of other fault injectors.

    python benchmarks/faulty_inference.py [--images 256] [--rounds 7]

Every neuron is struck independently, by dropout with p = 0.1 or by Gaussian noise. All jobs take
turns; each ratio is taken within a round, and its median is printed with the smallest and the
largest. "plain" is the module itself in float32 and torch's default memory format, batch 64. A
faulty pass is the time of `predict_variants` with one variant less that of the round's clean pass,
which it includes; "best" is the ratio of the shortest times, for machines that others use as well.

PyTorchFI and MRFI take part if they can be imported (`pip install --no-deps pytorchfi mrfi`, and
add their folder to PYTHONPATH). PyTorchFI gets lists of drawn neurons and strikes convolutions
before their ReLU, on few images, since it is slow; MRFI strikes after the ReLU, at a rate just
below 0.1, which it refuses.
"""

import argparse
import importlib
import logging
from collections.abc import Callable

import torch
from timing import alternate, plain, spread

import nce_sim as nce
from nce_sim.accuracy.evaluate import Variant, predict_variants
from nce_sim.workload.models import load_module

P = 0.1
PEER_IMAGES = {"PyTorchFI": 8, "MRFI": 64}
Job = Callable[[], object]


def pytorchfi_job(images: torch.Tensor) -> Job:
    """Return a pass in which PyTorchFI zeroes the neurons of freshly drawn lists."""
    core = importlib.import_module("pytorchfi.core")
    logging.getLogger().setLevel(logging.ERROR)
    injector = core.fault_injection(
        load_module("allcnn-fashion"), len(images), list(images.shape[1:])
    )
    shapes = [(len(images), *shape[1:]) for shape in injector.output_size]

    def run() -> None:
        struck = [torch.nonzero(torch.rand(shape) < P) for shape in shapes]
        places = torch.cat(struck)
        layers = [layer for layer, found in enumerate(struck) for _ in range(len(found))]
        batch, channel, row, column = places.T.tolist()
        faulty = injector.declare_neuron_fi(
            layer_num=layers, batch=batch, dim1=channel, dim2=row, dim3=column,
            value=[0.0] * len(layers),
        )  # fmt: skip
        with torch.inference_mode():
            faulty(images)

    return run


def mrfi_job(images: torch.Tensor) -> Job:
    """Return a pass in which MRFI draws for every neuron whether to zero it."""
    mrfi = importlib.import_module("mrfi")
    strike = {
        "type": "activation_out",
        "selector": {"method": "RandomPositionByRate_classic", "rate": P - 1e-9},
        "error_mode": {"method": "SetZero"},
        "module_type": ["ReLU"],
    }
    faulty = mrfi.MRFI(load_module("allcnn-fashion"), mrfi.EasyConfig({"faultinject": [strike]}))
    return lambda: faulty(images)


def peer_jobs(images: torch.Tensor) -> dict[str, Job]:
    """Return a faulty and a plain job for each peer that works here; say why others do not."""
    jobs: dict[str, Job] = {}
    module = load_module("allcnn-fashion")
    for name, make in (("PyTorchFI", pytorchfi_job), ("MRFI", mrfi_job)):
        some = images[: PEER_IMAGES[name]]
        try:
            job = make(some)
            job()
        except Exception as reason:  # whatever a peer fails with is its result
            print(f"{name}: not measured ({type(reason).__name__}: {reason})")
            continue
        jobs[name] = job
        jobs[f"plain beside {name}"] = lambda some=some: plain(module, some)
    return jobs


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--images", type=int, default=256)
    options.add_argument("--rounds", type=int, default=7)
    arguments = options.parse_args()
    network, module = nce.load_model("allcnn-fashion"), load_module("allcnn-fashion")
    images = nce.load_data("fashion-mnist", "test").first(arguments.images).images
    everything = nce.rank(network, None, None, "random").split(1.0)
    noise = nce.GaussianNoise(1.0, nce.mean_activation(network, images[:64]))
    variants = {
        "clean": [],
        "dropout": [Variant(everything, nce.Dropout(P))],
        "noise": [Variant(everything, noise)],
    }
    jobs: dict[str, Job] = {
        "plain": lambda: plain(module, images),
        "plain channels-last": lambda: plain(module, images, channels_last=True),
    }
    for precision in ("float32", "bfloat16"):
        for name, wanted in variants.items():
            jobs[f"{name} {precision}"] = lambda wanted=wanted, precision=precision: (
                predict_variants(network, images, wanted, precision=precision)
            )
    jobs |= peer_jobs(images)
    times = alternate(jobs, arguments.rounds)

    print(f"{torch.get_num_threads()} threads, {arguments.rounds} rounds, {len(images)} images")
    for name in ("plain channels-last", "clean float32", "clean bfloat16"):
        ratios = [one / other for one, other in zip(times["plain"], times[name], strict=True)]
        best = min(times["plain"]) / min(times[name])
        print(f"{name:<20} {spread(ratios)} (best {best:.3g}) of plain throughput")
    for precision in ("float32", "bfloat16"):
        clean = times[f"clean {precision}"]
        for fault in ("dropout", "noise"):
            both = times[f"{fault} {precision}"]
            alone = [one - other for one, other in zip(both, clean, strict=True)]
            best = min(both) - min(clean)
            for name, reference in (("clean", clean), ("plain", times["plain"])):
                ratios = [one / other for one, other in zip(reference, alone, strict=True)]
                print(
                    f"{fault + ' ' + precision:<20} {spread(ratios)} "
                    f"(best {min(reference) / best:.3g}) of {name} throughput"
                )
    for peer in PEER_IMAGES:
        if peer in jobs:
            beside = times[f"plain beside {peer}"]
            ratios = [one / other for one, other in zip(beside, times[peer], strict=True)]
            print(f"{peer:<20} {spread(ratios)} of plain throughput")


if __name__ == "__main__":
    main()

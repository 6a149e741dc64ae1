"""Inference of All-CNN-C with every neuron zeroed with p, by other fault injectors.

They take the module in torch's default memory format: MRFI fails on channels_last.
"""

import logging
from dataclasses import dataclass

import torch

from benchmarks.cases import Case
from benchmarks.peers import load
from benchmarks.timing import Job
from nce_sim.workload.models import load_module


@dataclass(frozen=True)
class Peer:
    """A fault injector: how many images it takes at most, and what it does differently."""

    package: str
    images: int
    note: str


PEERS = {
    "PyTorchFI": Peer("pytorchfi", 8, "lists of drawn neurons; strikes before the ReLU"),
    "MRFI": Peer("mrfi", 64, "asked for p - 1e-9: it refuses 0.1"),
}


def faulty_pass(peer: str, case: Case, p: float) -> Job:
    """Return a pass over the case's images, as one batch, in which a peer strikes."""
    return {"PyTorchFI": _pytorchfi, "MRFI": _mrfi}[peer](case, p)


def _pytorchfi(case: Case, p: float) -> Job:
    core = load("pytorchfi.core")
    logging.getLogger().setLevel(logging.ERROR)
    images = case.images
    injector = core.fault_injection(load_module(case.model), len(images), list(images.shape[1:]))
    shapes = [(len(images), *shape[1:]) for shape in injector.output_size]

    def run() -> None:
        struck = [torch.nonzero(torch.rand(shape) < p) for shape in shapes]
        layers = [layer for layer, found in enumerate(struck) for _ in range(len(found))]
        batch, channel, row, column = torch.cat(struck).T.tolist()
        faulty = injector.declare_neuron_fi(
            layer_num=layers, batch=batch, dim1=channel, dim2=row, dim3=column,
            value=[0.0] * len(layers),
        )  # fmt: skip
        with torch.inference_mode():
            faulty(images)

    return run


def _mrfi(case: Case, p: float) -> Job:
    mrfi = load("mrfi")
    strike = {
        "type": "activation_out",
        "selector": {"method": "RandomPositionByRate_classic", "rate": p - 1e-9},
        "error_mode": {"method": "SetZero"},
        "module_type": ["ReLU"],
    }
    faulty = mrfi.MRFI(load_module(case.model), mrfi.EasyConfig({"faultinject": [strike]}))

    def run() -> None:
        with torch.inference_mode():
            faulty(case.images)

    return run

"""Train All-CNN-C on Fashion-MNIST; write weights.safetensors and training.json beside this file.

    python models/allcnn-fashion/train.py [--data FOLDER]

Two phases: with the dropout of the original network, then, from there, with less of it.
bfloat16 autocast throughout: about two minutes an epoch on two cores with AMX.
A checkpoint is kept after every epoch, and the same command continues from it.
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from nce_sim.workload.zoo.allcnn import all_cnn_c

FOLDER = Path(__file__).parent
sys.path.append(str(FOLDER.parent))
from training import SEED, Cycle, begin, resume, save, train_cycle  # noqa: E402

OUTPUT_BIAS = 1.0  # keeps every class above the last ReLU while training begins
CHECKPOINT = FOLDER.parents[1] / "build" / "allcnn-fashion.pt"  # models/ travels in the wheel


@dataclass(frozen=True)
class Phase:
    """One cycle of the learning rate; `dropout` after the input and both strided convolutions."""

    epochs: int
    peak_learning_rate: float
    dropout: tuple[float, float, float]


PHASES = (Phase(14, 1e-3, (0.2, 0.5, 0.5)), Phase(9, 8e-4, (0.0, 0.2, 0.2)))


def set_dropout(network: nn.Sequential, probabilities: tuple[float, float, float]) -> None:
    drops = [part for part in network if isinstance(part, nn.Dropout)]
    for part, probability in zip(drops, probabilities, strict=True):
        part.p = probability


def main() -> None:
    train, test = begin(__doc__)
    generator = torch.Generator().manual_seed(SEED)
    network = all_cnn_c(in_channels=1).to(memory_format=torch.channels_last)
    last = [part for part in network if isinstance(part, nn.Conv2d)][-1]
    nn.init.constant_(last.bias, OUTPUT_BIAS)
    state = resume(CHECKPOINT, network, generator)
    for number, phase in enumerate(PHASES, start=1):
        if number >= state.get("phase", 1):
            set_dropout(network, phase.dropout)
            cycle = Cycle(number, phase.epochs, phase.peak_learning_rate)
            train_cycle(network, cycle, state, train, test, generator, CHECKPOINT)
    save(network, FOLDER, train, test, {"phases": [asdict(phase) for phase in PHASES]})


if __name__ == "__main__":
    main()

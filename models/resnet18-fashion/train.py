"""Train ResNet-18 on Fashion-MNIST; write weights.safetensors and training.json beside this file.

    python models/resnet18-fashion/train.py [--data FOLDER]

bfloat16 autocast throughout. A checkpoint is kept after every epoch, and the same command continues
from it.
"""

import sys
from dataclasses import asdict
from pathlib import Path

import torch

from nce_sim.workload.zoo.resnet import resnet18_small

FOLDER = Path(__file__).parent
sys.path.append(str(FOLDER.parent))
from training import SEED, Cycle, begin, resume, save, train_cycle  # noqa: E402

CYCLE = Cycle(number=1, epochs=8, peak_learning_rate=4e-3)
WIDTH = 32  # channels of the first stage; the original has 64
CHECKPOINT = FOLDER.parents[1] / "build" / "resnet18-fashion.pt"  # models/ travels in the wheel


def main() -> None:
    train, test = begin(__doc__)
    generator = torch.Generator().manual_seed(SEED)
    network = resnet18_small(in_channels=1, classes=10, width=WIDTH)
    network = network.to(memory_format=torch.channels_last)
    state = resume(CHECKPOINT, network, generator)
    train_cycle(network, CYCLE, state, train, test, generator, CHECKPOINT)
    save(network, FOLDER, train, test, {"cycle": asdict(CYCLE), "width": WIDTH}, torch.float16)


if __name__ == "__main__":
    main()

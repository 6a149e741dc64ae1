"""Train All-CNN-C on Fashion-MNIST; write weights.safetensors and training.json beside this file.

    python models/allcnn-fashion/train.py [--data FOLDER]

Two phases: with the dropout of the original network, then, from there, with less of it.
bfloat16 autocast throughout: about two minutes an epoch on two cores with AMX.
A checkpoint is kept after every epoch, and the same command continues from it.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from nce_sim.workload.datasets import Dataset, load_data
from nce_sim.workload.zoo.allcnn import all_cnn_c

FOLDER = Path(__file__).parent
BATCH, WEIGHT_DECAY, SEED = 128, 0.05, 2018
OUTPUT_BIAS = 1.0  # keeps every class above the last ReLU while training begins
CHECKPOINT = FOLDER.parents[1] / "build" / "allcnn-fashion.pt"  # models/ travels in the wheel


@dataclass(frozen=True)
class Phase:
    """One cycle of the learning rate; `dropout` after the input and both strided convolutions."""

    epochs: int
    peak_learning_rate: float
    dropout: tuple[float, float, float]


PHASES = (Phase(14, 1e-3, (0.2, 0.5, 0.5)), Phase(9, 8e-4, (0.0, 0.2, 0.2)))


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of the images and shift each batch by up to two pixels."""
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    down, right = torch.randint(0, 5, (2,), generator=generator).tolist()
    return functional.pad(images, (2, 2, 2, 2), value=float(images.min()))[
        :, :, down : down + images.shape[2], right : right + images.shape[3]
    ]


@torch.inference_mode()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of right answers in float32."""
    network.eval()
    right = sum(
        int((network(images[i : i + 250]).argmax(1) == labels[i : i + 250]).sum())
        for i in range(0, len(images), 250)
    )
    return right / len(images)


def train_phase(
    network: nn.Sequential, phase: Phase, number: int, state: dict, train: Dataset, test: Dataset,
    generator: torch.Generator,
) -> None:  # fmt: skip
    """Train for one phase, continuing from `state` if it is of this phase."""
    drops = [part for part in network if isinstance(part, nn.Dropout)]
    for part, probability in zip(drops, phase.dropout, strict=True):
        part.p = probability
    optimiser = torch.optim.AdamW(
        network.parameters(), phase.peak_learning_rate, weight_decay=WEIGHT_DECAY
    )
    steps = len(train.images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, phase.peak_learning_rate, total_steps=phase.epochs * steps, pct_start=0.2
    )
    first = 0
    if state.get("phase") == number:
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        first = state["epoch"]
    for epoch in range(first, phase.epochs):
        network.train()
        began, total = time.perf_counter(), 0.0
        for batch in torch.randperm(len(train.images), generator=generator).split(BATCH)[:steps]:
            images = augment(train.images[batch], generator)
            images = images.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                loss = functional.cross_entropy(network(images).float(), train.labels[batch])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        reached = accuracy(network, test.images[:2000], test.labels[:2000])
        print(
            f"phase {number}, epoch {epoch + 1}/{phase.epochs}: loss {total / steps:.4f}, first "
            f"2,000 test images {reached:.2%}, {time.perf_counter() - began:.0f} s", flush=True,
        )  # fmt: skip
        save_checkpoint(
            {"network": network.state_dict(), "optimiser": optimiser.state_dict(),
             "schedule": schedule.state_dict(), "generator": generator.get_state(),
             "torch": torch.get_rng_state(), "phase": number, "epoch": epoch + 1}
        )  # fmt: skip


def save_checkpoint(state: dict) -> None:
    """Write the state under a temporary name and rename it."""
    CHECKPOINT.parent.mkdir(exist_ok=True)
    temporary = CHECKPOINT.with_suffix(".new")
    torch.save(state, temporary)
    temporary.replace(CHECKPOINT)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, default=None, help="folder of the four IDX files")
    arguments = options.parse_args()

    train = load_data("fashion-mnist", "train", folder=arguments.data)
    test = load_data("fashion-mnist", "test", folder=arguments.data)
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    network = all_cnn_c(in_channels=1).to(memory_format=torch.channels_last)
    last = [part for part in network if isinstance(part, nn.Conv2d)][-1]
    nn.init.constant_(last.bias, OUTPUT_BIAS)
    state: dict = {}
    if CHECKPOINT.exists():
        state = torch.load(CHECKPOINT, weights_only=True)
        network.load_state_dict(state["network"])
        generator.set_state(state["generator"])
        torch.set_rng_state(state["torch"])
    for number, phase in enumerate(PHASES, start=1):
        if number >= state.get("phase", 1):
            train_phase(network, phase, number, state, train, test, generator)

    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(weights, FOLDER / "weights.safetensors")
    network.load_state_dict(load_file(FOLDER / "weights.safetensors"))
    summary = {
        "phases": [asdict(phase) for phase in PHASES], "batch": BATCH,
        "weight_decay": WEIGHT_DECAY, "seed": SEED, "training_images": len(train.images),
        "test_images": len(test.images),
        "test_accuracy": accuracy(network, test.images, test.labels),
        "weights_sha256": sha256((FOLDER / "weights.safetensors").read_bytes()).hexdigest(),
        "torch": torch.__version__,
    }  # fmt: skip
    (FOLDER / "training.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()

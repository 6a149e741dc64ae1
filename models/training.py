"""What the training scripts share: images, one cycle of the learning rate, checkpoints."""

import argparse
import json
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from nce_sim.workload.datasets import Dataset, load_data

BATCH, WEIGHT_DECAY, SEED = 128, 0.05, 2018
WATCHED = 2000  # test images looked at after each epoch


@dataclass(frozen=True)
class Cycle:
    """One cycle of the learning rate, the `number`th of a training."""

    number: int
    epochs: int
    peak_learning_rate: float


def begin(description: str | None) -> tuple[Dataset, Dataset]:
    """Read the command line, seed torch, and return the training and the test images."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--data", type=Path, default=None, help="folder of the four IDX files")
    folder = options.parse_args().data
    torch.manual_seed(SEED)
    return (
        load_data("fashion-mnist", "train", folder=folder),
        load_data("fashion-mnist", "test", folder=folder),
    )


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


def resume(checkpoint: Path, network: nn.Module, generator: torch.Generator) -> dict:
    """Return the state of an interrupted training, loaded into its network; {} if there is none."""
    if not checkpoint.exists():
        return {}
    state: dict = torch.load(checkpoint, weights_only=True)
    network.load_state_dict(state["network"])
    generator.set_state(state["generator"])
    torch.set_rng_state(state["torch"])
    return state


def train_cycle(
    network: nn.Module, cycle: Cycle, state: dict, train: Dataset, test: Dataset,
    generator: torch.Generator, checkpoint: Path,
) -> None:  # fmt: skip
    """Train for one cycle by AdamW in bfloat16, continuing from `state` if it is of this cycle."""
    optimiser = torch.optim.AdamW(
        network.parameters(), cycle.peak_learning_rate, weight_decay=WEIGHT_DECAY
    )
    steps = len(train.images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, cycle.peak_learning_rate, total_steps=cycle.epochs * steps, pct_start=0.2
    )
    first = 0
    if state.get("phase") == cycle.number:
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        first = state["epoch"]
    for epoch in range(first, cycle.epochs):
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
        reached = accuracy(network, test.images[:WATCHED], test.labels[:WATCHED])
        print(
            f"cycle {cycle.number}, epoch {epoch + 1}/{cycle.epochs}: loss {total / steps:.4f}, "
            f"first {WATCHED:,} test images {reached:.2%}, {time.perf_counter() - began:.0f} s",
            flush=True,
        )
        _save_checkpoint(
            checkpoint,
            {"network": network.state_dict(), "optimiser": optimiser.state_dict(),
             "schedule": schedule.state_dict(), "generator": generator.get_state(),
             "torch": torch.get_rng_state(), "phase": cycle.number, "epoch": epoch + 1},
        )  # fmt: skip


def _save_checkpoint(checkpoint: Path, state: dict) -> None:
    """Write the state under a temporary name and rename it."""
    checkpoint.parent.mkdir(exist_ok=True)
    temporary = checkpoint.with_suffix(".new")
    torch.save(state, temporary)
    temporary.replace(checkpoint)


def save(
    network: nn.Module, folder: Path, train: Dataset, test: Dataset, settings: dict,
    number_format: torch.dtype = torch.float32,
) -> None:  # fmt: skip
    """Write weights.safetensors and training.json; accuracy is that of the weights as written."""
    weights = {
        name: value.to(number_format).contiguous()
        for name, value in network.state_dict().items()
        if value.is_floating_point()
    }
    save_file(weights, folder / "weights.safetensors")
    network.load_state_dict(load_file(folder / "weights.safetensors"), strict=False)
    summary = {
        **settings, "batch": BATCH, "weight_decay": WEIGHT_DECAY, "seed": SEED,
        "training_images": len(train.images), "test_images": len(test.images),
        "test_accuracy": accuracy(network, test.images, test.labels),
        "weights_sha256": sha256((folder / "weights.safetensors").read_bytes()).hexdigest(),
        "torch": torch.__version__,
    }  # fmt: skip
    (folder / "training.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps(summary, indent=2))

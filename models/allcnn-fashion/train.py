"""Train All-CNN-C on Fashion-MNIST and write weights.safetensors and training.json beside this file.

    python models/allcnn-fashion/train.py [--data FOLDER] [--epochs 16]

bfloat16 autocast throughout: about two minutes an epoch on two cores with AMX.
A checkpoint is kept after every epoch, and the same command continues from it.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from nce_sim.workload.datasets import load_data
from nce_sim.workload.zoo.allcnn import all_cnn_c

FOLDER = Path(__file__).parent
BATCH, PEAK_LEARNING_RATE, WEIGHT_DECAY, SEED = 128, 1e-3, 0.05, 2018
OUTPUT_BIAS = 1.0  # keeps every class above the last ReLU while training begins


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


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, default=None, help="folder of the four IDX files")
    options.add_argument("--epochs", type=int, default=16)
    arguments = options.parse_args()

    train = load_data("fashion-mnist", "train", folder=arguments.data)
    test = load_data("fashion-mnist", "test", folder=arguments.data)
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    network = all_cnn_c(in_channels=1).to(memory_format=torch.channels_last)
    last = [part for part in network if isinstance(part, nn.Conv2d)][-1]
    nn.init.constant_(last.bias, OUTPUT_BIAS)
    optimiser = torch.optim.AdamW(network.parameters(), PEAK_LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = len(train.images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, PEAK_LEARNING_RATE, total_steps=arguments.epochs * steps, pct_start=0.2
    )
    checkpoint, first = FOLDER / "checkpoint.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        generator.set_state(state["generator"])
        torch.set_rng_state(state["torch"])
        first = state["epoch"]

    for epoch in range(first, arguments.epochs):
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
            f"epoch {epoch + 1}/{arguments.epochs}: loss {total / steps:.4f}, "
            f"first 2,000 test images {reached:.2%}, {time.perf_counter() - began:.0f} s", flush=True,
        )
        torch.save(
            {"network": network.state_dict(), "optimiser": optimiser.state_dict(),
             "schedule": schedule.state_dict(), "generator": generator.get_state(),
             "torch": torch.get_rng_state(), "epoch": epoch + 1},
            checkpoint.with_suffix(".new"),
        )
        checkpoint.with_suffix(".new").replace(checkpoint)

    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(weights, FOLDER / "weights.safetensors")
    network.load_state_dict(load_file(FOLDER / "weights.safetensors"))
    summary = {
        "epochs": arguments.epochs, "batch": BATCH, "peak_learning_rate": PEAK_LEARNING_RATE,
        "weight_decay": WEIGHT_DECAY, "seed": SEED, "training_images": len(train.images),
        "test_images": len(test.images),
        "test_accuracy": accuracy(network, test.images, test.labels),
        "torch": torch.__version__,
    }
    (FOLDER / "training.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()

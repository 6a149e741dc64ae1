"""Train the small network on digits; write weights.safetensors and training.json beside this file.

    python models/cnn-digits/train.py [--validate]

With --validate it trains on the first 800 training images and prints the accuracy on the other 200,
and writes nothing: so the settings below were chosen. One thread, so that a repetition on
the same kind of processor gives the same weights.
"""

import argparse
import json
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from nce_sim.workload.datasets import load_data
from nce_sim.workload.zoo.digits_cnn import digits_cnn

FOLDER = Path(__file__).parent
EPOCHS, BATCH, PEAK_LEARNING_RATE, WEIGHT_DECAY, SEED = 120, 50, 2e-2, 0.05, 2018
OUTPUT_BIAS = 1.0  # keeps every class above the last ReLU while training begins
VALIDATION_IMAGES = 200  # the last of the training images


def shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each image by at most one pixel each way; black comes in."""
    places = torch.randint(0, 3, (len(images), 2), generator=generator)
    padded = functional.pad(images, (1, 1, 1, 1), value=float(images.min()))
    height, width = images.shape[2:]
    return torch.stack(
        [
            image[:, down : down + height, right : right + width]
            for image, (down, right) in zip(padded, places.tolist(), strict=True)
        ]
    )


@torch.inference_mode()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of right answers in float32."""
    network.eval()
    return float((network(images).argmax(1) == labels).double().mean())


def train(images: Tensor, labels: Tensor) -> nn.Sequential:
    """Train with AdamW and one cycle of the learning rate."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    network = digits_cnn()
    last = [part for part in network if isinstance(part, nn.Conv2d)][-1]
    nn.init.constant_(last.bias, OUTPUT_BIAS)
    optimiser = torch.optim.AdamW(
        network.parameters(), PEAK_LEARNING_RATE, weight_decay=WEIGHT_DECAY
    )
    steps = len(images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, PEAK_LEARNING_RATE, total_steps=EPOCHS * steps, pct_start=0.2
    )
    network.train()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images), generator=generator).split(BATCH)[:steps]:
            loss = functional.cross_entropy(network(shift(images[batch], generator)), labels[batch])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
    return network


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--validate", action="store_true", help="hold 200 training images out")
    arguments = options.parse_args()

    torch.set_num_threads(1)
    data = load_data("digits", "train")
    if arguments.validate:
        kept = len(data) - VALIDATION_IMAGES
        network = train(data.images[:kept], data.labels[:kept])
        print(f"{accuracy(network, data.images[kept:], data.labels[kept:]):.2%}")
        return
    network = train(data.images, data.labels)
    test = load_data("digits", "test")
    save_file(network.state_dict(), FOLDER / "weights.safetensors")
    network.load_state_dict(load_file(FOLDER / "weights.safetensors"))
    summary = {
        "epochs": EPOCHS, "batch": BATCH, "peak_learning_rate": PEAK_LEARNING_RATE,
        "weight_decay": WEIGHT_DECAY, "seed": SEED, "training_images": len(data),
        "test_images": len(test), "test_accuracy": accuracy(network, test.images, test.labels),
        "weights_sha256": sha256((FOLDER / "weights.safetensors").read_bytes()).hexdigest(),
        "torch": torch.__version__,
    }  # fmt: skip
    (FOLDER / "training.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()

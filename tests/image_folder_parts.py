"""Folders of images in the layout of ILSVRC, made small."""

import numpy as np
from PIL import Image


def photo(seed, width, height, mode="RGB"):
    """A smooth image with noise."""
    draw = np.random.default_rng(seed)
    across, down = np.meshgrid(np.linspace(0, 5, width), np.linspace(0, 3, height))
    channels = [127 + 90 * np.sin(across * (c + 1) + down + seed) for c in range(3)]
    noisy = np.stack(channels, -1) + draw.normal(0, 10, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).convert(mode)


def write_folders(folder, classes, counts, size=(40, 30)):
    for number, (name, count) in enumerate(zip(classes, counts, strict=True)):
        (folder / name).mkdir(parents=True)
        for image in range(count):
            path = folder / name / f"{name}_{image}.JPEG"
            photo(10 * number + image, *size).save(path, quality=95)


SYNSETS = ("n01440764", "n01443537", "n02102040")


def write_ilsvrc(folder):
    """Write three classes, the first of 1,000: six images of validation, five of training."""
    write_folders(folder / "val", SYNSETS, (3, 1, 2), (300, 260))
    write_folders(folder / "train", SYNSETS, (2, 2, 1), (260, 300))
    list_classes(folder)


def list_classes(folder):
    """Write the list of all 1,000 classes, of which only the first three have images."""
    names = [*SYNSETS, *(f"n2{number:07}" for number in range(997))]
    (folder / "classes.txt").write_text("\n".join(names))


def write_record(path, text):
    path.write_text(text)
    return str(path)


FOLDER_YAML = """
kind: folder
name: photos
size: [20, 24]
mean: [0.5]
deviation: [0.25]
parts: {test: val, train: train}
"""

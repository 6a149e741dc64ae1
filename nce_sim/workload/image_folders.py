"""Folders of images, one folder a class, as ImageNet's are laid out for training.

An image is resized so that its shorter side has a given length (bilinear, with Pillow's antialias;
the longer side is rounded down), and its centre is cut out. With 256 and 224 x 224 this is the
standard evaluation of ImageNet in torchvision, pixel for pixel: it uses Pillow, too.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from nce_sim.errors import InputError
from nce_sim.workload.images import LazyImages, Scale

ENDINGS = (
    ".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff",
)  # fmt: skip
"""Files with these endings, in either case, are images; others are passed over."""

MODES = {1: "L", 3: "RGB"}
"""Pillow's modes by number of channels."""

DEEP_MODES = ("F", "I")
"""Begin the names of Pillow's modes of more than 8 bits a channel."""


@dataclass(frozen=True)
class Cut:
    """The shorter side after resizing, and the height and width of the centre that is used."""

    resize: int
    height: int
    width: int

    def of(self, image: Image.Image) -> Image.Image:
        """Resize an image and cut its centre out; `resize` is at least height and width."""
        short = min(image.size)
        width, height = (self.resize * side // short for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = round((width - self.width) / 2), round((height - self.height) / 2)
        return image.crop((left, top, left + self.width, top + self.height))


@dataclass(frozen=True)
class ImageFiles:
    """Reads images from files: decode, resize, cut, scale. `names` are paths within `folder`."""

    folder: Path
    names: Sequence[str]
    cut: Cut
    scale: Scale

    def __call__(self, places: Sequence[int]) -> Tensor:
        """Return the images at `places`, float32; InputError names a file that is no image."""
        pixels = np.stack([self._pixels(self.folder / self.names[place]) for place in places])
        return self.scale(torch.from_numpy(pixels))

    def images(self) -> LazyImages:
        """Return all images, unread."""
        shape = (len(self.names), len(self.scale.mean), self.cut.height, self.cut.width)
        return LazyImages(self, torch.Size(shape))

    def _pixels(self, path: Path) -> NDArray[np.uint8]:
        """Return one image's pixels, uint8 C x H x W."""
        channels = len(self.scale.mean)
        try:
            with Image.open(path) as image:
                if image.mode.startswith(DEEP_MODES):
                    raise InputError(f"the image {path} has more than 8 bits a channel")
                pixels = np.asarray(self.cut.of(image.convert(MODES[channels])))
        except InputError:
            raise
        except Exception as reason:  # decoders raise what they like on damaged files
            raise InputError(
                f"the image {path} cannot be decoded ({type(reason).__name__}: {reason})"
            ) from reason
        return np.ascontiguousarray(pixels.reshape(*pixels.shape[:2], channels).transpose(2, 0, 1))


def find_images(
    folder: Path, classes: Sequence[str] | None = None, most: int | None = None
) -> tuple[list[str], NDArray[np.int64]]:
    """Return the paths of images within `folder`, and their labels.

    Each folder in it is a class, and its label is its place among `classes`, or among all of
    them by name. Images come in turns, one of each class by name, then the next of each, so that
    the first are of all classes; `most` of them at most. Names that begin with a dot are passed
    over.

    Raises InputError for a folder that cannot be read, that has no class, or a class without an
    image, or one that is not among `classes`.
    """
    found = class_names(folder)
    if not found:
        raise InputError(
            f"{folder} holds no folders: images must lie in one folder a class, as in "
            f"{folder / 'CLASS' / 'IMAGE.jpg'}"
        )
    known = found if classes is None else classes
    strange = [name for name in found if name not in known]
    if strange:
        raise InputError(f"{folder} has classes that are not listed: {', '.join(strange)}")
    by_class = [_images(folder, name) for name in found]
    empty = [name for name, images in zip(found, by_class, strict=True) if not images]
    if empty:
        raise InputError(
            f"{folder}: no image in the class folder {', '.join(empty)} (endings read: "
            f"{' '.join(ENDINGS)}): fill it, or remove it"
        )
    label_of = {name: label for label, name in enumerate(known)}
    in_turns = list(islice(_in_turns(by_class), most))
    labels = [label_of[name.partition("/")[0]] for name in in_turns]
    return in_turns, np.array(labels, np.int64)


def _in_turns(by_class: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the first of each class, then the second of each, and so on."""
    for turn in zip_longest(*by_class):
        yield from (name for name in turn if name is not None)


def class_names(folder: Path) -> list[str]:
    """Return the folders within a folder, by name; InputError if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
    except OSError as reason:
        raise InputError(f"cannot read the folder of images {folder}: {reason}") from reason
    return sorted(name for name in names if not name.startswith("."))


def _images(folder: Path, name: str) -> list[str]:
    """Return the images of a class, at any depth, by path within `folder`."""

    def refuse(reason: OSError) -> None:
        raise InputError(f"cannot read the folder of images {folder / name}: {reason}") from reason

    found = []
    for place, _, files in os.walk(folder / name, onerror=refuse):
        within = Path(place).relative_to(folder).as_posix()
        found += [
            f"{within}/{file}"
            for file in files
            if file.lower().endswith(ENDINGS) and not file.startswith(".")
        ]
    return sorted(found)

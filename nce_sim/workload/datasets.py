"""Labelled images: the bundled parts of Fashion-MNIST, and the whole set where it can be found."""

import gzip
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import pooch
import torch
from numpy.typing import NDArray
from torch import Tensor

from nce_sim.config.bundle import bundled
from nce_sim.errors import InputError

SYSTEM_FOLDERS = (Path("/usr/share/datasets/fashion-mnist"),)  # Debian: dataset-fashion-mnist
DOWNLOAD_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
PARTS = {  # part: (images, labels)
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
    "ranking": ("ranking-images-idx3-ubyte.gz", "ranking-labels-idx1-ubyte.gz"),
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
}
BUNDLED_PARTS = ("test", "ranking")
PUBLISHED_MD5 = {  # as the data set's own page prints them
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
}
PIXEL_MEAN, PIXEL_DEVIATION = 0.2860, 0.3530  # of the 60,000 training images, after / 255


@dataclass(frozen=True)
class Dataset:
    """Images ready for the network, N x C x H x W float32, and labels, N int64."""

    name: str
    part: str
    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise InputError(
                f"{self.name}/{self.part}: {len(self.images)} images, {len(self.labels)} labels"
            )

    def __len__(self) -> int:
        return len(self.images)

    def first(self, count: int) -> "Dataset":
        """Return the first `count` images; InputError if there are fewer, or none are asked for."""
        if not 1 <= count <= len(self):
            raise InputError(
                f"{count} images were asked for; {self.name}/{self.part} holds {len(self)}"
            )
        return Dataset(self.name, self.part, self.images[:count], self.labels[:count])


def load_data(name: str, part: str = "test", folder: Path | str | None = None) -> Dataset:
    """Load a part of a data set.

    `name` is "fashion-mnist"; `part` is "test" (10,000 images), "ranking" (500 training images of
    each class), both bundled, or "train" (60,000). With `folder`, the gzipped IDX files are read
    from there; otherwise "train" is looked for in the system's data folder, then downloaded.
    Images are padded from 28x28 to 32x32 and normalised.

    Raises InputError for an unknown name or part and for a missing or damaged file.
    """
    if name != "fashion-mnist":
        raise InputError(f"unknown data set '{name}': known is fashion-mnist")
    if part not in PARTS:
        raise InputError(f"unknown part '{part}' of {name}: known are {', '.join(PARTS)}")
    images_file, labels_file = (_locate(file, part, folder) for file in PARTS[part])
    pixels, labels = read_idx(images_file), read_idx(labels_file)
    if pixels.ndim != 3 or labels.ndim != 1:
        raise InputError(
            f"{images_file} holds an array of {pixels.ndim} dimensions and {labels_file.name} one "
            f"of {labels.ndim}: images have 3 and labels 1"
        )
    padded = np.pad(pixels, ((0, 0), (2, 2), (2, 2)))
    images = torch.from_numpy(padded).float().div_(255).sub_(PIXEL_MEAN).div_(PIXEL_DEVIATION)
    return Dataset(name, part, images[:, None], torch.from_numpy(labels.astype(np.int64)))


def _locate(file: str, part: str, folder: Path | str | None) -> Path:
    """Return the path of one file: the user's folder, the bundle, the system, a download."""
    if folder is not None:
        path = Path(folder) / file
        if not path.is_file():
            raise InputError(f"no file {path}: the folder must hold {' and '.join(PARTS[part])}")
        return path
    if part in BUNDLED_PARTS:
        return bundled("datasets") / "fashion-mnist" / file
    for system in SYSTEM_FOLDERS:
        if (system / file).is_file():
            return system / file
    return _download(file)


def _download(file: str) -> Path:
    """Fetch one file of the training set into the user's cache and check its published checksum."""
    try:
        fetched = pooch.retrieve(
            DOWNLOAD_URL + file, known_hash=f"md5:{PUBLISHED_MD5[file]}", fname=file,
            path=pooch.os_cache("nce-sim"),
        )  # fmt: skip
    except (OSError, ValueError) as reason:
        raise InputError(
            f"the full training set is not in {SYSTEM_FOLDERS[0]} and {DOWNLOAD_URL}{file} could "
            f"not be fetched ({reason}): install Debian's package dataset-fashion-mnist, or name "
            f"a folder with the IDX files"
        ) from reason
    return Path(fetched)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of unsigned bytes: magic 00 00 08 D, then D big-endian sizes.

    Raises InputError if the file is missing, no gzip, of another type, or shorter or longer than
    its header says.
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, gzip.zlib.error) as reason:  # type: ignore[attr-defined]
        raise InputError(f"{path} cannot be read as a gzipped IDX file: {reason}") from reason
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise InputError(f"{path} is no IDX file of unsigned bytes: it begins {content[:4]!r}")
    dimensions = content[3]
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise InputError(f"{path} ends inside its header, after {len(content)} bytes")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    expected = header + prod(shape)
    if len(content) != expected:
        raise InputError(f"{path} holds {len(content)} bytes; its header asks for {expected}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)

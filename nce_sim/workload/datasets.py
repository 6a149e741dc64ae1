"""Labelled images from IDX files: bundled, of a folder, of the system, or downloaded."""

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
from nce_sim.workload.dataset_descriptions import (
    DatasetDescription,
    Elsewhere,
    Part,
    describe_data,
)


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

    "fashion-mnist": `part` is "test" (10,000 images), "ranking" (500 training images of each
    class), both bundled, or "train" (60,000); images are padded from 28x28 to 32x32. "digits":
    "test" (797), or "train" and "ranking", which are the same 1,000 images; all are bundled, 8x8.
    Pixels are normalised with the mean and deviation of the training images.

    With `folder`, the gzipped IDX files are read from there; otherwise what is not bundled is
    looked for in the system's data folder, then downloaded.

    Raises InputError for an unknown name or part and for a missing or damaged file.
    """
    known = describe_data(name)
    if part not in known.parts:
        raise InputError(f"unknown part '{part}' of {name}: known are {', '.join(known.parts)}")
    images_file, labels_file = _locate(known, known.parts[part], folder)
    pixels, labels = read_idx(images_file), read_idx(labels_file)
    if pixels.ndim != 3 or labels.ndim != 1:
        raise InputError(
            f"{images_file} holds an array of {pixels.ndim} dimensions and {labels_file.name} one "
            f"of {labels.ndim}: images have 3 and labels 1"
        )
    padded = np.pad(pixels, ((0, 0), (known.border,) * 2, (known.border,) * 2))
    images = torch.from_numpy(padded).float()
    images = images.div_(known.white).sub_(known.mean).div_(known.deviation)
    return Dataset(name, part, images[:, None], torch.from_numpy(labels.astype(np.int64)))


def _locate(known: DatasetDescription, part: Part, folder: Path | str | None) -> list[Path]:
    """Return the paths of a part's files: the user's folder, the bundle, or elsewhere."""
    if folder is not None:
        paths = [Path(folder) / file for file in part.files]
        for path in paths:
            if not path.is_file():
                raise InputError(f"no file {path}: the folder must hold {' and '.join(part.files)}")
        return paths
    if part.bundled:
        return [bundled("datasets") / known.name / file for file in part.files]
    assert known.elsewhere is not None
    return [_find_elsewhere(known.elsewhere, file) for file in part.files]


def _find_elsewhere(elsewhere: Elsewhere, file: str) -> Path:
    """Return a file of the system's folder, or fetch it into the user's cache and check it."""
    if (elsewhere.system_folder / file).is_file():
        return elsewhere.system_folder / file
    try:
        fetched = pooch.retrieve(
            elsewhere.url + file, known_hash=f"md5:{elsewhere.md5[file]}", fname=file,
            path=pooch.os_cache("nce-sim"),
        )  # fmt: skip
    except (OSError, ValueError) as reason:
        raise InputError(
            f"the full training set is not in {elsewhere.system_folder} and {elsewhere.url}{file} "
            f"could not be fetched ({reason}): install {elsewhere.system_package}, or name "
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

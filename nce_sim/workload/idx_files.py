"""The IDX format of MNIST and its kin: gzipped arrays of unsigned bytes."""

import gzip
import struct
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nce_sim.errors import InputError


def read_idx_pair(images_file: Path, labels_file: Path) -> tuple[NDArray, NDArray]:
    """Return pixels, uint8 N x H x W, and labels, uint8 N.

    Raises InputError as `read_idx` does, and for arrays of other dimensions.
    """
    pixels, labels = read_idx(images_file), read_idx(labels_file)
    if pixels.ndim != 3 or labels.ndim != 1:
        raise InputError(
            f"{images_file} holds an array of {pixels.ndim} dimensions and {labels_file.name} one "
            f"of {labels.ndim}: images have 3 and labels 1"
        )
    return pixels, labels


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

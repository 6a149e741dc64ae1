"""Images and labels in one NumPy archive (.npz)."""

import zlib
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from nce_sim.errors import InputError

WHITE = {np.dtype(np.uint8): 255.0, np.dtype(np.float32): 1.0}
"""What a pixel is divided by, by the type of the array: bytes end up between 0 and 1."""


def read_npz(path: Path, channels: int) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
    """Return `images`, uint8 or float32 N x C x H x W, and `labels`, N.

    Grey images may lack the dimension of the channel. Raises InputError for a file that cannot be
    read, other keys, and arrays of another shape or type.
    """
    arrays = _read(path)
    images, labels = arrays["images"], arrays["labels"]
    if images.dtype not in WHITE:
        raise InputError(f"{path}: images are of type {images.dtype}; uint8 and float32 are read")
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4 or images.shape[1] != channels or 0 in images.shape:
        raise InputError(
            f"{path}: images have shape {arrays['images'].shape}; N x {channels} x H x W is needed "
            f"for a mean of {channels} channel{'s' * (channels > 1)}"
        )
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise InputError(
            f"{path}: labels are {labels.dtype} of shape {labels.shape}; {len(images)} whole "
            f"numbers are needed, one an image"
        )
    return images, labels.astype(np.int64)


def _read(path: Path) -> dict[str, NDArray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if isinstance(archive, NpzFile) and {"images", "labels"} <= set(archive.files):
                return {key: archive[key] for key in ("images", "labels")}
            keys = archive.files if isinstance(archive, NpzFile) else []
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error, TypeError) as reason:
        raise InputError(f"cannot read {path} as an .npz of arrays: {reason}") from reason
    raise InputError(
        f"{path} holds {', '.join(keys) or 'no archive'}: an .npz with the arrays images and "
        f"labels is needed"
    )

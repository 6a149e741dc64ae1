"""Write the IDX files beside this one from scikit-learn's copy of the data (`load_digits`).

    pip install scikit-learn
    python datasets/digits/make.py

Needs no nce-sim, and nce-sim needs no scikit-learn. The same input gives the same bytes.
"""

import gzip
import struct
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

FOLDER = Path(__file__).parent
TRAINING_IMAGES = 1000  # the first of the 1,797, in their original order; the others are the test


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write unsigned bytes as a gzipped IDX file: magic 00 00 08 D, D big-endian sizes, data."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes(), mtime=0))


def main() -> None:
    """Cut the set into its two parts."""
    data = load_digits()
    parts = {"train": slice(TRAINING_IMAGES), "test": slice(TRAINING_IMAGES, None)}
    for name, part in parts.items():
        write_idx(FOLDER / f"{name}-images-idx3-ubyte.gz", data.images[part])
        write_idx(FOLDER / f"{name}-labels-idx1-ubyte.gz", data.target[part])
    pixels = data.images[parts["train"]] / 16
    print(f"training pixels / 16: mean {pixels.mean():.4f}, deviation {pixels.std():.4f}")


if __name__ == "__main__":
    main()

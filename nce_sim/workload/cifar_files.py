"""The two published formats of CIFAR-10: batches of pickled arrays, and batches of plain bytes.

Both come as a gzipped tar archive. It is read as a stream, member by member: nothing is unpacked
to disk, and no name in it is used as a path.
"""

import gzip
import io
import pickle
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy._core.multiarray import _reconstruct
from numpy.typing import NDArray

from nce_sim.errors import InputError

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32

ARCHIVES = ("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz")
FOLDERS = ("cifar-10-batches-bin", "cifar-10-batches-py")

Pixels = NDArray[np.uint8]


def read_cifar(place: Path, batches: Sequence[str]) -> tuple[Pixels, NDArray[np.int64]]:
    """Return pixels, uint8 N x 3 x 32 x 32, and labels of some batches, such as "test_batch".

    `place` is an archive, the folder that it unpacks to, or a folder that holds either; where both
    formats lie, the one of plain bytes is read. Raises InputError if it is none of these, and for
    an archive or a batch that is damaged.
    """
    files = _read_files(_choose(place), batches)
    parts = [
        _parse_bytes(content, name) if name.endswith(".bin") else _parse_pickle(content, name)
        for name, content in files.items()
    ]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _choose(place: Path) -> Path:
    """Return the archive, or the folder with the batches themselves."""
    if place.is_file() or any((place / f"test_batch{end}").exists() for end in ("", ".bin")):
        return place
    for name in (*FOLDERS, *ARCHIVES):
        if (place / name).exists():
            return place / name
    raise InputError(
        f"{place} holds no CIFAR-10: it must be, or hold, {', '.join((*ARCHIVES, *FOLDERS))}"
    )


def _read_files(place: Path, batches: Sequence[str]) -> Mapping[str, bytes]:
    """Return the content of each batch's file, by path for messages."""
    if place.is_file():
        return _read_archive(place, batches)
    end = ".bin" if (place / "test_batch.bin").exists() else ""
    paths = [place / f"{batch}{end}" for batch in batches]
    try:
        return {str(path): path.read_bytes() for path in paths}
    except OSError as reason:
        raise InputError(f"cannot read a batch of CIFAR-10: {reason}") from reason


def _read_archive(path: Path, batches: Sequence[str]) -> Mapping[str, bytes]:
    """Return the batches of an archive, read to its end so that its checksum is met."""
    found: dict[str, tuple[str, bytes]] = {}
    try:
        with gzip.open(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                batch = member.name.rpartition("/")[2]
                content = archive.extractfile(member) if member.isfile() else None
                if content is not None and batch.removesuffix(".bin") in batches:
                    name = f"{path}:{member.name}"
                    found[batch.removesuffix(".bin")] = (name, content.read())
            while stream.read(2**20):
                pass
    except (OSError, EOFError, tarfile.TarError, zlib.error) as reason:
        raise InputError(
            f"the archive {path} is truncated or damaged ({reason}): fetch it again"
        ) from reason
    missing = [batch for batch in batches if batch not in found]
    if missing:
        raise InputError(f"the archive {path} is no CIFAR-10: it lacks {', '.join(missing)}")
    return dict(found[batch] for batch in batches)


def _parse_bytes(content: bytes, name: str) -> tuple[Pixels, NDArray[np.int64]]:
    """Read records of a label's byte and 3,072 pixels: red rows, green rows, blue rows."""
    if not content or len(content) % (1 + PIXELS):
        raise InputError(
            f"{name} holds {len(content)} bytes, not records of {1 + PIXELS}: is it truncated?"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, 1 + PIXELS)
    return records[:, 1:].reshape(-1, *SHAPE), records[:, 0].astype(np.int64)


class _OnlyArrays(pickle.Unpickler):
    """An unpickler for what the published batches hold: dicts, lists, bytes and NumPy arrays."""

    ALLOWED = {  # noqa: RUF012
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    }

    def find_class(self, module: str, name: str) -> object:
        """Return one of the few names that arrays need; InputError for any other."""
        if (module, name) not in self.ALLOWED:
            raise InputError(f"it names {module}.{name}, which would run code: refused")
        return self.ALLOWED[module, name]


def _parse_pickle(content: bytes, name: str) -> tuple[Pixels, NDArray[np.int64]]:
    """Read a dict with b"data", uint8 N x 3072, and b"labels", a list of N whole numbers."""
    try:
        batch = _OnlyArrays(io.BytesIO(content), encoding="bytes").load()
        pixels, labels = batch[b"data"], batch[b"labels"]
        labels = np.array(labels, np.int64)
    except InputError as reason:
        raise InputError(f"{name} is no published batch of CIFAR-10: {reason}") from reason
    except Exception as reason:  # a damaged pickle can raise anything
        raise InputError(
            f"{name} cannot be read as a batch of CIFAR-10 ({type(reason).__name__}: {reason}): "
            f"is it truncated?"
        ) from reason
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise InputError(f"{name}: its b'data' is no array of bytes N x {PIXELS}")
    if pixels.shape[1] != PIXELS or labels.shape != (len(pixels),):
        raise InputError(
            f"{name}: data of shape {pixels.shape} and {labels.shape} labels; a batch holds "
            f"N x {PIXELS} and N"
        )
    return pixels.reshape(-1, *SHAPE), labels

"""Predictions of finished blocks, kept while a long evaluation runs, so that it can be resumed."""

import io
import shutil
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

import nce_sim
from nce_sim.accuracy.answers import Answers
from nce_sim.files import write_atomically
from nce_sim.seeding import DRAWS
from nce_sim.workload.graph import Workload
from nce_sim.workload.images import Images, pixel_bytes


class Block(NamedTuple):
    """The clean answers for a block's images, and variants x realisations x images faulty ones."""

    clean: Answers
    faulty: Answers


class Checkpoint:
    """A folder with one file for each finished block of one evaluation.

    Its name is a hash of everything that affects the predictions: another network, other images,
    variants, seeds, random generators or package versions never meet these files.
    """

    def __init__(self, folder: Path, *identity: object) -> None:
        versions = (nce_sim.__version__, DRAWS, torch.__version__, np.__version__)
        self.folder = folder / sha256(repr((identity, versions)).encode()).hexdigest()[:32]

    def load(self, start: int) -> Block | None:
        """Return the block that begins with image `start`, or None if it must be computed.

        A damaged file counts as none.
        """
        try:
            with np.load(self._path(start), allow_pickle=False) as archive:
                clean, faulty = (
                    Answers(archive[name], archive.get(f"{name}_confidence"))
                    for name in Block._fields
                )
                return Block(clean, faulty)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return None

    def save(self, start: int, block: Block) -> None:
        """Keep a finished block."""
        archive = io.BytesIO()
        arrays: dict[str, NDArray[np.generic]] = {}
        for name, answers in block._asdict().items():
            arrays[name] = answers.classes
            if answers.confidences is not None:
                arrays[f"{name}_confidence"] = answers.confidences
        np.savez(archive, **arrays)  # type: ignore[arg-type]
        write_atomically(self._path(start), archive.getvalue())

    def remove(self) -> None:
        """Delete all blocks, and the folder around them if nothing else is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.folder.parent.is_dir() and not any(self.folder.parent.iterdir()):
            self.folder.parent.rmdir()

    def _path(self, start: int) -> Path:
        return self.folder / f"{start:08d}.npz"


def evaluation_identity(
    network: Workload, images: Images, variants: Sequence[tuple[str, str]], *settings: object
) -> tuple[object, ...]:
    """Return what the predictions of an evaluation depend on."""
    pixels = sha256()
    for block in pixel_bytes(images):
        pixels.update(block)
    return (network.identity, pixels.hexdigest(), tuple(variants), *settings)

"""What a network answers: the class of its largest output, and how sure it is of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NOT_FINITE = -1
"""Class of an answer whose outputs hold NaN or infinity: it is no class, and wrong."""


@dataclass(frozen=True)
class Answers:
    """The answers for some images: `classes` is int16.

    `confidences` has the softmax of each answer's class (1 for NOT_FINITE), float32; None where
    it was not asked for. The shape of both is that of the images.
    """

    classes: NDArray[np.int16]
    confidences: NDArray[np.float32] | None = None

    def to_bytes(self) -> bytes:
        """Return both as a NumPy archive."""
        archive = BytesIO()
        held: dict[str, NDArray[np.generic]] = {"classes": self.classes}
        if self.confidences is not None:
            held["confidences"] = self.confidences
        np.savez(archive, **held)  # type: ignore[arg-type]
        return archive.getvalue()

    @staticmethod
    def of(content: bytes) -> "Answers":
        """Return the answers that `to_bytes` wrote."""
        with np.load(BytesIO(content), allow_pickle=False) as archive:
            return Answers(archive["classes"], archive.get("confidences"))

    def __getitem__(self, key: Any) -> "Answers":
        """Return the answers at some places, as NumPy picks them."""
        sure = None if self.confidences is None else self.confidences[key]
        return Answers(self.classes[key], sure)


def joined(parts: Sequence[Answers]) -> Answers:
    """Return the answers of several blocks, one after another."""
    sure = [part.confidences for part in parts if part.confidences is not None]
    classes = np.concatenate([part.classes for part in parts])
    return Answers(classes, np.concatenate(sure) if sure else None)


def top1(outputs: Tensor) -> NDArray[np.int16]:
    """Return each row's class of the largest output, or NOT_FINITE if any output is not finite."""
    outputs = outputs.flatten(1)
    finite = outputs.isfinite().all(1)
    classes = torch.where(finite[:, None], outputs, 0).argmax(1)
    return torch.where(finite, classes, NOT_FINITE).cpu().numpy().astype(np.int16)


def top1_confidence(outputs: Tensor) -> NDArray[np.float32]:
    """Return each row's softmax of its largest output, 1 if any output is not finite."""
    outputs = outputs.flatten(1).float()
    best = outputs.softmax(1).amax(1)
    sure: NDArray[np.float32] = torch.where(outputs.isfinite().all(1), best, 1).cpu().numpy()
    return sure

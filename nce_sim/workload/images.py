"""Images for a network: a tensor, or a sequence that reads a block of them when it is asked."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nce_sim.errors import InputError

HASHED_AT_ONCE = 64
"""Images in memory at once while their pixels are hashed."""

ReadImages = Callable[[Sequence[int]], Tensor]
"""Given the places of images, returns them: float32 N x C x H x W."""


@dataclass(frozen=True)
class LazyImages:
    """Images that stay where they are until some are asked for: `images[slice or whole numbers]`.

    `shape` is N x C x H x W. Nothing is kept: each request calls `read` with the places it needs,
    and memory holds what the caller keeps. Threads may ask side by side.
    """

    read: ReadImages
    shape: torch.Size
    dtype: ClassVar[torch.dtype] = torch.float32

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice | NDArray[np.integer]) -> Tensor:
        """Return some images, float32 n x C x H x W; whole numbers are places from 0.

        Raises InputError for a file that cannot be read, and for NaN and infinity; IndexError for
        a place outside.
        """
        places = self._places(index)
        if not places:
            return torch.empty(0, *self.shape[1:])
        images = self.read(places)
        if not torch.stack(images.aminmax()).isfinite().all():
            raise InputError(f"images {places[0]} to {places[-1]} hold NaN or infinity")
        return images

    def first(self, count: int) -> "LazyImages":
        """Return the first `count` images, or all where there are fewer; unread."""
        return LazyImages(self.read, torch.Size((min(count, len(self)), *self.shape[1:])))

    def _places(self, index: slice | NDArray[np.integer]) -> Sequence[int]:
        if isinstance(index, slice):
            return range(len(self))[index]
        places: list[int] = np.asarray(index).tolist()
        if places and not 0 <= min(places) <= max(places) < len(self):
            raise IndexError(f"images {min(places)} to {max(places)} of {len(self)} were asked for")
        return places


Images: TypeAlias = Tensor | LazyImages
"""What a network reads: N x its input shape, float32."""


def first_images(images: Images, count: int) -> Images:
    """Return the first `count` images, or all where there are fewer; lazy ones stay unread."""
    return images.first(count) if isinstance(images, LazyImages) else images[:count]


def pixel_bytes(images: Images) -> Iterator[bytes]:
    """Yield the bytes of all pixels in order, block by block: for a hash."""
    for start in range(0, len(images), HASHED_AT_ONCE):
        yield images[start : start + HASHED_AT_ONCE].contiguous().numpy().tobytes()


@dataclass(frozen=True)
class Scale:
    """How pixels become inputs: (value / `white` - `mean`) / `deviation`, by channel."""

    white: float
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __call__(self, pixels: Tensor) -> Tensor:
        """Scale pixels N x C x H x W of any type; the result is float32 and new."""
        mean, deviation = (
            torch.tensor(values, dtype=torch.float32)[:, None, None]
            for values in (self.mean, self.deviation)
        )
        scaled = pixels.to(torch.float32, copy=True)
        return scaled.div_(self.white).sub_(mean).div_(deviation)


@dataclass(frozen=True)
class StoredPixels:
    """Reads images from an array of pixels N x C x H x W, and scales them then."""

    pixels: NDArray[np.generic]
    scale: Scale

    def __call__(self, places: Sequence[int]) -> Tensor:
        """Return the images at `places`, float32."""
        return self.scale(torch.from_numpy(self.pixels[np.asarray(places)]))

    def images(self) -> LazyImages:
        """Return all images, unscaled until they are asked for."""
        return LazyImages(self, torch.Size(self.pixels.shape))

"""What there is to know of each data set: its parts, its files, and how its pixels are scaled."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nce_sim.errors import InputError


@dataclass(frozen=True)
class Part:
    """One part of a data set: two gzipped IDX files that hold so many images and labels.

    A part that is not `bundled` is looked for elsewhere: see `Elsewhere`.
    """

    images_file: str
    labels_file: str
    images: int
    bundled: bool = True

    @property
    def files(self) -> tuple[str, str]:
        """Both files: images, labels."""
        return (self.images_file, self.labels_file)


@dataclass(frozen=True)
class Elsewhere:
    """Where files lie that are not bundled: a folder of the system, or an address.

    `md5` are the checksums that the data set's own page prints, by file.
    """

    system_folder: Path
    system_package: str
    url: str
    md5: Mapping[str, str]


@dataclass(frozen=True)
class DatasetDescription:
    """A data set of grey images.

    A pixel becomes (value / `white` - `mean`) / `deviation`, mean and deviation being those of the
    training images after the division. `border` pixels of black are added on every side. "ranking"
    and "train" are training images, "ranking" those that are always at hand.
    """

    name: str
    description: str
    parts: Mapping[str, Part]
    white: int
    mean: float
    deviation: float
    border: int = 0
    elsewhere: Elsewhere | None = None


FASHION_MNIST = DatasetDescription(
    name="fashion-mnist",
    description="10,000 test and 5,000 ranking images, 32x32",
    parts={
        "test": Part("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz", 10_000),
        "ranking": Part("ranking-images-idx3-ubyte.gz", "ranking-labels-idx1-ubyte.gz", 5_000),
        "train": Part(
            "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", 60_000, bundled=False
        ),
    },
    white=255,
    mean=0.2860,
    deviation=0.3530,
    border=2,
    elsewhere=Elsewhere(
        system_folder=Path("/usr/share/datasets/fashion-mnist"),
        system_package="Debian's package dataset-fashion-mnist",
        url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        md5={
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        },
    ),
)

_DIGITS_TRAIN = Part("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", 1_000)

DIGITS = DatasetDescription(
    name="digits",
    description="handwritten digits, 797 test and 1,000 training images, 8x8",
    parts={
        "test": Part("test-images-idx3-ubyte.gz", "test-labels-idx1-ubyte.gz", 797),
        "ranking": _DIGITS_TRAIN,
        "train": _DIGITS_TRAIN,
    },
    white=16,
    mean=0.3070,
    deviation=0.3764,
)

DATASETS = {each.name: each for each in (FASHION_MNIST, DIGITS)}
"""All data sets by name."""


def describe_data(name: str) -> DatasetDescription:
    """Return the description of a data set; InputError if there is none of that name."""
    if name not in DATASETS:
        raise InputError(f"unknown data set '{name}': known are {', '.join(DATASETS)}")
    return DATASETS[name]


def ranking_part(name: str, images: int) -> str:
    """Return the part of a data set to rank with: "ranking" if it holds so many images, or "train".

    Raises InputError for an unknown data set and for more images than both of them hold.
    """
    parts = describe_data(name).parts
    for part in ("ranking", "train"):
        if images <= parts[part].images:
            return part
    raise InputError(
        f"{images:,} images to rank with were asked for; {name} has {parts['train'].images:,} "
        f"training images: ask for that many at most"
    )

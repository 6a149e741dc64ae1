"""What there is to know of each published data set: parts, files, scale of pixels, licence."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nce_sim.errors import InputError
from nce_sim.workload.images import Scale

RANKING_IMAGES = 5_000
"""Training images in the part "ranking": the first of "train"."""


@dataclass(frozen=True)
class Part:
    """One part of a data set: its files, and how many images it has as published.

    The files are two of IDX, images and labels; or batches of CIFAR-10; or a folder of classes.
    """

    files: tuple[str, ...]
    images: int
    bundled: bool = False


@dataclass(frozen=True)
class Download:
    """Files at an address, with the MD5 sums that the data set's own page prints.

    Where there is an `archive`, it holds the files of all parts.
    """

    url: str
    md5: Mapping[str, str]
    archive: str | None = None


@dataclass(frozen=True)
class System:
    """A folder that a package of the system fills."""

    folder: Path
    package: str


@dataclass(frozen=True)
class DatasetDescription:
    """A published data set; `scale` is that of its pixels, and `scaled_by` where it comes from.

    `border` pixels of black are added on every side before scaling. "ranking" and "train" are
    training images, "ranking" the first of them, or those that are bundled. `page` is where the
    data set is described, and `licence` what it says about use. Without a `download`, it has to
    be fetched by hand.
    """

    name: str
    description: str
    layout: Literal["idx", "cifar", "folders"]
    parts: Mapping[str, Part]
    classes: int
    scale: Scale
    scaled_by: str
    page: str
    licence: str
    border: int = 0
    download: Download | None = None
    system: System | None = None


_TRAIN = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
_T10K = ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")

FASHION_MNIST = DatasetDescription(
    name="fashion-mnist",
    description="10,000 test and 5,000 ranking images, 32x32",
    layout="idx",
    parts={
        "test": Part(_T10K, 10_000, bundled=True),
        "ranking": Part(
            ("ranking-images-idx3-ubyte.gz", "ranking-labels-idx1-ubyte.gz"), 5_000, bundled=True
        ),
        "train": Part(_TRAIN, 60_000),
    },
    classes=10,
    scale=Scale(255, (0.2860,), (0.3530,)),
    scaled_by="mean and deviation of the training images",
    page="https://github.com/zalandoresearch/fashion-mnist",
    licence="MIT",
    border=2,
    download=Download(
        url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        md5={_TRAIN[0]: "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
             _TRAIN[1]: "25c81989df183df01b3e8a0aad5dffbe"},
    ),
    system=System(
        Path("/usr/share/datasets/fashion-mnist"), "Debian's package dataset-fashion-mnist"
    ),
)  # fmt: skip

_DIGITS_TRAIN = Part(_TRAIN, 1_000, bundled=True)

DIGITS = DatasetDescription(
    name="digits",
    description="handwritten digits, 797 test and 1,000 training images, 8x8",
    layout="idx",
    parts={
        "test": Part(("test-images-idx3-ubyte.gz", "test-labels-idx1-ubyte.gz"), 797, bundled=True),
        "ranking": _DIGITS_TRAIN,
        "train": _DIGITS_TRAIN,
    },
    classes=10,
    scale=Scale(16, (0.3070,), (0.3764,)),
    scaled_by="mean and deviation of the training images",
    page="https://archive.ics.uci.edu/dataset/80",
    licence="CC BY 4.0",
)

MNIST = DatasetDescription(
    name="mnist",
    description="handwritten digits, 10,000 test and 60,000 training images, 32x32; downloaded",
    layout="idx",
    parts={
        "test": Part(_T10K, 10_000),
        "ranking": Part(_TRAIN, RANKING_IMAGES),
        "train": Part(_TRAIN, 60_000),
    },
    classes=10,
    scale=Scale(255, (0.1307,), (0.3081,)),
    scaled_by="mean and deviation of the training images",
    page="http://yann.lecun.com/exdb/mnist/",
    licence="CC BY-SA 3.0",
    border=2,
    download=Download(
        url="https://ossci-datasets.s3.amazonaws.com/mnist/",
        md5={_TRAIN[0]: "f68b3c2dcbeaaa9fbdd348bbdeb94873",
             _TRAIN[1]: "d53e105ee54ea40749a09fcbcd1e9432",
             _T10K[0]: "9fb629c4189551a2d022fa330f9573f3",
             _T10K[1]: "ec29112dd5afa0611ce80d1b7f02629c"},
    ),
)  # fmt: skip

_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))

CIFAR_10 = DatasetDescription(
    name="cifar-10",
    description="10,000 test and 50,000 training images in colour, 32x32; downloaded",
    layout="cifar",
    parts={
        "test": Part(("test_batch",), 10_000),
        "ranking": Part(_BATCHES[:1], RANKING_IMAGES),
        "train": Part(_BATCHES, 50_000),
    },
    classes=10,
    scale=Scale(255, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    scaled_by="mean and deviation of the training images",
    page="https://www.cs.toronto.edu/~kriz/cifar.html",
    licence="none stated; its page asks to cite Krizhevsky, 2009",
    download=Download(  # of the two formats, the one that needs no unpickling
        url="https://www.cs.toronto.edu/~kriz/",
        md5={"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
        archive="cifar-10-binary.tar.gz",
    ),
)

IMAGENET = DatasetDescription(
    name="imagenet",
    description="ILSVRC 2012, 50,000 validation and 1,281,167 training images, 224x224; by hand",
    layout="folders",
    parts={
        "test": Part(("val",), 50_000),
        "ranking": Part(("train",), RANKING_IMAGES),
        "train": Part(("train",), 1_281_167),
    },
    classes=1_000,
    scale=Scale(255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    scaled_by="torchvision's reference training",
    page="https://www.image-net.org/download.php",
    licence="research and education only, after registration",
)

DATASETS = {each.name: each for each in (FASHION_MNIST, DIGITS, MNIST, CIFAR_10, IMAGENET)}
"""All published data sets by name."""


def describe_data(name: str) -> DatasetDescription:
    """Return the description of a data set; InputError if there is none of that name."""
    if name not in DATASETS:
        raise InputError(
            f"unknown data set '{name}': known are {', '.join(DATASETS)}; NAME=FOLDER says where "
            f"one lies, and the path of a data.yaml describes another"
        )
    return DATASETS[name]

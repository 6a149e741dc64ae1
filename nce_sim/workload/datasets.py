"""Labelled images: of published data sets, of folders, and of NumPy archives."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nce_sim.errors import InputError
from nce_sim.workload.cifar_files import read_cifar
from nce_sim.workload.data_config import (
    DataRecord,
    FolderData,
    NpzData,
    Parts,
    PublishedData,
    find_data,
)
from nce_sim.workload.dataset_descriptions import (
    RANKING_IMAGES,
    DatasetDescription,
    Part,
    describe_data,
)
from nce_sim.workload.idx_files import read_idx_pair
from nce_sim.workload.image_folders import Cut, ImageFiles, class_names, find_images
from nce_sim.workload.images import Images, Scale, StoredPixels, first_images
from nce_sim.workload.locate_data import locate
from nce_sim.workload.npz_data import WHITE, read_npz

PARTS = ("test", "ranking", "train")

CLASS_LIST = "classes.txt"
"""In the folder of a published data set: all its classes, where not all have a folder."""

Labelled = tuple[Images, NDArray[np.int64]]
"""Images and their labels."""


@dataclass(frozen=True)
class Dataset:
    """Images ready for the network, N x C x H x W float32, and labels, N int64.

    Images may be lazy: then `images[:100]` reads them, and nothing else does. `classes` is how
    many the labels tell apart, whether images of all of them are here or not; None if unknown.
    """

    name: str
    part: str
    images: Images
    labels: Tensor
    classes: int | None = None

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise InputError(
                f"{self.name}/{self.part}: {len(self.images)} images, {len(self.labels)} labels"
            )

    def __len__(self) -> int:
        return len(self.images)

    def first(self, count: int) -> "Dataset":
        """Return the first `count` images; InputError if there are fewer, or none are asked for.

        Lazy images stay unread.
        """
        if not 1 <= count <= len(self):
            raise InputError(
                f"{count} images were asked for; {self.name}/{self.part} holds {len(self)}"
            )
        images, labels = first_images(self.images, count), self.labels[:count]
        return replace(self, images=images, labels=labels)

    def up_to(self, count: int) -> "Dataset":
        """Return the first `count` images, or all where there are fewer."""
        return self.first(min(count, len(self)))


def numbering_doubt(data: Dataset, answers: int) -> str | None:
    """Say what is odd where the classes of `data` are not as many as a network's `answers`."""
    if data.classes is None or data.classes == answers:
        return None
    return (
        f"the labels of {data.name} number {data.classes:,} classes and the network has "
        f"{answers:,} answers: accuracy and rankings mean something only where the network was "
        f"trained with these numbers"
    )


def load_data(
    data: str | DataRecord, part: str = "test", folder: Path | str | None = None
) -> Dataset:
    """Load a part of data: "test", "ranking" or "train".

    `data` is the name of a published data set (`nce-sim list` has them), NAME=FOLDER, the path of
    a `data.yaml`, or a record of `nce_sim.workload.data_config`; `folder` takes the place of the
    folder that it names. "ranking" holds the first 5,000 training images; of Fashion-MNIST it
    holds 500 of each class, which are bundled.

    Images of Fashion-MNIST and MNIST are padded from 28x28 to 32x32. What is not found here is
    downloaded where that is allowed. CIFAR-10 is kept in bytes and folders of images in files:
    they are lazy.

    Raises InputError for an unknown name or part and for a missing or damaged file.
    """
    record = find_data(data)
    if folder is not None:
        record = record.model_copy(update={"folder": str(folder)})
    if part not in PARTS:
        raise InputError(f"unknown part '{part}' of {record.name}: known are {', '.join(PARTS)}")
    match record:
        case PublishedData():
            known = describe_data(record.name)
            images, labels = _published(known, part, record.folder)
            classes: int | None = known.classes
        case FolderData():
            listed = _classes(record)
            images, labels = _folder(record, part, listed)
            classes = len(listed) if listed is not None else None
        case NpzData():
            images, labels = _npz(record, part)
            classes = None
    if labels.min() < 0:
        raise InputError(f"{record.name}/{part}: labels begin at 0, and one is {labels.min()}")
    whole = Dataset(record.name, part, images, torch.from_numpy(labels), classes)
    return whole.up_to(RANKING_IMAGES) if part == "ranking" else whole


def _published(known: DatasetDescription, name: str, folder: str | None) -> Labelled:
    part = known.parts[name]
    place = locate(known, part, folder)
    match known.layout:
        case "idx":
            images, labels = _idx(known, part, place)
        case "cifar":
            pixels, labels = read_cifar(place, part.files)
            images = StoredPixels(pixels, known.scale).images()
        case "folders":
            record = _imagenet(known, place)
            listed = _classes(record) or class_names(_place(record, name))
            _check_numbering(known, record, name, listed)
            return _folder(record, name, listed)
    if labels.max() >= known.classes:
        raise InputError(
            f"{place}: a label of {known.name} is {labels.max()}; its classes are 0 to "
            f"{known.classes - 1}"
        )
    return images, labels


def _idx(known: DatasetDescription, part: Part, place: Path) -> Labelled:
    """Read two IDX files, pad the images and scale them all: they are small."""
    paths = [place / file for file in part.files]
    for path in paths:
        if not path.is_file():
            raise InputError(f"no file {path}: the folder must hold {' and '.join(part.files)}")
    pixels, labels = read_idx_pair(*paths)
    padded = np.pad(pixels, ((0, 0), (known.border,) * 2, (known.border,) * 2))
    return known.scale(torch.from_numpy(padded)[:, None]), labels.astype(np.int64)


def _imagenet(known: DatasetDescription, place: Path) -> FolderData:
    """Return the record of ImageNet: its validation images lie in val/, or in the folder itself."""
    flat = not any((place / name).is_dir() for name in ("val", "train"))
    return FolderData(
        kind="folder", name=known.name, folder=str(place), size=[224, 224], resize=256,
        mean=list(known.scale.mean), deviation=list(known.scale.deviation),
        classes=CLASS_LIST if (place / CLASS_LIST).is_file() else None,
        parts=Parts(test="." if flat else "val", train="train"),
    )  # fmt: skip


def _check_numbering(
    known: DatasetDescription, record: FolderData, part: str, listed: Sequence[str]
) -> None:
    """Refuse a part of the classes: numbered by name, theirs are not what a network has learned.

    Where there are none at all, `find_images` says so.
    """
    if len(listed) in (0, known.classes):
        return
    folder = Path(record.folder, record.parts.test)
    if not folder.is_dir():
        folder = _place(record, part)
    place = folder if record.classes is None else Path(record.folder, record.classes)
    found = "lists" if record.classes else "holds folders of"
    raise InputError(
        f"{place} {found} {len(listed):,} classes, and {known.name} has {known.classes:,}: their "
        f"numbers would not be those that trained networks answer with. List all "
        f"{known.classes:,} in the order of their numbers in {Path(record.folder, CLASS_LIST)}, "
        f"one a line. Where numbers do not matter, as for random weights, describe the folder as "
        f"data of your own: kind: folder in a data.yaml"
    )


def _folder(record: FolderData, part: str, listed: Sequence[str] | None) -> Labelled:
    place = _place(record, part)
    most = RANKING_IMAGES if part == "ranking" else None
    names, labels = find_images(place, listed, most)
    height, width = record.size
    cut = Cut(record.resize or max(record.size), height, width)
    scale = Scale(255, tuple(record.mean), tuple(record.deviation))
    return ImageFiles(place, names, cut, scale).images(), labels


def _classes(record: FolderData) -> list[str] | None:
    """Return the classes that are listed, or those of the test images: they hold for all parts."""
    if record.classes is not None:
        return _read_classes(Path(record.folder, record.classes))
    place = Path(record.folder, record.parts.test)
    return class_names(place) if place.is_dir() else None


def _npz(record: NpzData, part: str) -> Labelled:
    pixels, labels = read_npz(_place(record, part), len(record.mean))
    scale = Scale(WHITE[pixels.dtype], tuple(record.mean), tuple(record.deviation))
    return StoredPixels(pixels, scale).images(), labels


def _place(record: FolderData | NpzData, part: str) -> Path:
    """Return where a part of the user's images lies."""
    named = record.parts.test if part == "test" else record.parts.train
    if named is None:
        raise InputError(
            f"data '{record.name}' names no training images to rank or calibrate with: give "
            f"parts: {{train: ...}}"
        )
    place = Path(record.folder, named)
    if not place.exists():
        raise InputError(
            f"data '{record.name}' has no {place}, where its {part} images should be: put them "
            f"there, or say in parts where they are"
        )
    return place


def _read_classes(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as reason:
        raise InputError(f"cannot read the list of classes {path}: {reason}") from reason
    classes = [line.strip() for line in lines if line.strip()]
    if not classes or len(set(classes)) < len(classes):
        raise InputError(f"{path} must list all classes, one a line and each once")
    return classes

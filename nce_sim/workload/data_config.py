"""Which data a network is ranked and judged with: a published data set, or the user's own images.

They are named by a text, or described by a record in a `model.yaml` or a `data.yaml` of its own.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, PositiveFloat, PositiveInt, RootModel, Tag
from pydantic import model_validator as check

from nce_sim.config.loader import FieldError, Strict, load_yaml
from nce_sim.errors import InputError
from nce_sim.workload.dataset_descriptions import RANKING_IMAGES, describe_data


class PublishedData(Strict):
    """A data set that nce-sim knows by name; `folder` is where its files lie."""

    kind: Literal["published"] = "published"
    name: str
    folder: str | None = None

    @check(mode="after")
    def _known(self) -> "PublishedData":
        try:
            describe_data(self.name)
        except InputError as reason:
            raise FieldError(("name",), str(reason)) from reason
        return self


class Parts(Strict):
    """Where the parts lie within the data's folder: folders of classes, or .npz files.

    "ranking" is the first of "train".
    """

    test: str
    train: str | None = None


class _Scaled(Strict):
    """What the user's own images have in common."""

    name: str
    folder: str = "."
    mean: list[float] = Field(description="by channel: one for grey images, three for colour")
    deviation: list[PositiveFloat]

    @check(mode="after")
    def _channels(self) -> "_Scaled":
        if len(self.mean) not in (1, 3) or len(self.deviation) != len(self.mean):
            raise FieldError(
                ("mean",),
                f"mean and deviation need one number each for grey images, or three for colour; "
                f"these have {len(self.mean)} and {len(self.deviation)}",
            )
        return self


class FolderData(_Scaled):
    """Folders of images, one a class.

    The shorter side becomes `resize` pixels (the larger of `size`, if not given), then the centre
    of `size` (height, width) is cut out. Pixels are divided by 255, then scaled. `classes` is a
    file with all classes in the order of their labels, one a line; without it, they are the
    folders by name.
    """

    kind: Literal["folder"]
    size: list[PositiveInt] = Field(min_length=2, max_length=2)
    resize: PositiveInt | None = None
    classes: str | None = None
    parts: Parts = Parts(test="val", train="train")

    @check(mode="after")
    def _covers(self) -> "FolderData":
        if self.resize is not None and self.resize < max(self.size):
            raise FieldError(
                ("resize",), f"resize must be at least {max(self.size)}, as size, not {self.resize}"
            )
        return self


class NpzData(_Scaled):
    """NumPy archives, one a part: images N x C x H x W, and labels N.

    Pixels of type uint8 are divided by 255, then scaled; those of float32 are only scaled.
    """

    kind: Literal["npz"]
    parts: Parts


def _tag(given: Any) -> str:
    """Tell which of the ways to name data this is."""
    if isinstance(given, str):
        return "text"
    kind = given.get("kind") if isinstance(given, dict) else getattr(given, "kind", None)
    return str(kind or "published")


DataRecord = PublishedData | FolderData | NpzData
"""Data that were found: folders are paths from where the command runs."""

GivenData = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[PublishedData, Tag("published")]
    | Annotated[FolderData, Tag("folder")]
    | Annotated[NpzData, Tag("npz")],
    Discriminator(_tag),
]
"""What stands behind `data:` in a YAML file."""


class DataFile(RootModel[GivenData]):
    """A `data.yaml`: one record."""


def find_data(given: str | DataRecord, beside: Path | None = None) -> DataRecord:
    """Return the record of data that a text or a record names; folders are taken from `beside`.

    A text is the name of a published data set, NAME=FOLDER, or the path of a `data.yaml`, whose
    folders are taken from where it lies.
    Raises InputError for an unknown name and a file that does not fit; no image is looked for yet.
    """
    beside = beside or Path()
    if not isinstance(given, str):
        if given.folder is None:
            return given
        return given.model_copy(update={"folder": str(beside / given.folder)})
    if given.endswith((".yaml", ".yml")):
        path = beside / given
        content = load_yaml(path, DataFile).root
        if isinstance(content, str):
            raise InputError(f"{path} holds the text '{content}', not a record of data")
        return find_data(content, path.parent)
    name, has_folder, folder = given.partition("=")
    describe_data(name)
    return PublishedData(name=name, folder=str(beside / folder) if has_folder else None)


def ranking_part(data: str | DataRecord, images: int) -> str:
    """Return the part of data to rank with: "ranking" if it holds so many images, or "train".

    Raises InputError for an unknown data set and for more images than both of them hold.
    """
    record = find_data(data)
    if not isinstance(record, PublishedData):
        return "ranking" if images <= RANKING_IMAGES else "train"
    parts = describe_data(record.name).parts
    for part in ("ranking", "train"):
        if images <= parts[part].images:
            return part
    raise InputError(
        f"{images:,} images to rank with were asked for; {record.name} has "
        f"{parts['train'].images:,} training images: ask for that many at most"
    )

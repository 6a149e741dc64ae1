"""Networks by name: bundled ones, those of a `model.yaml` or another file, and what code makes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import nn

from nce_sim.config.bundle import bundled, unknown_name
from nce_sim.config.loader import Strict, load_yaml
from nce_sim.errors import InputError
from nce_sim.workload.capture import capture, capture_program
from nce_sim.workload.data_config import GivenData, find_data
from nce_sim.workload.exported_files import SUFFIX as PT2
from nce_sim.workload.exported_files import load_exported
from nce_sim.workload.graph import Workload
from nce_sim.workload.onnx_files import SUFFIX as ONNX
from nce_sim.workload.onnx_files import load_onnx
from nce_sim.workload.users_code import FACTORY, importable, make_module
from nce_sim.workload.weights import load_weights

DESCRIPTION = "model.yaml"

ShapeOf = Callable[[], Sequence[int]]
"""Returns the shape of one image of data: C, H, W."""


class ModelDescription(Strict):
    """A network: where its module is made and where its weights lie."""

    name: str
    description: str
    architecture: str = Field(pattern=r"^[\w.]+:\w+$", description="package.module:factory")
    arguments: dict[str, Any] = Field(default_factory=dict)
    input_shape: list[PositiveInt] = Field(min_length=1, max_length=3)
    weights: str | None = Field(default=None, description="file of tensors beside this")
    weights_sha256: str | None = None
    seed: int | None = Field(default=None, ge=0, description="of random weights")
    data: GivenData | None = Field(default=None, description="what it was trained on")

    @model_validator(mode="after")
    def _weights_or_seed(self) -> "ModelDescription":
        if (self.weights is None) == (self.seed is None):
            raise ValueError("give either weights, or the seed of random ones")
        return self


def load_description(name_or_path: str | Path) -> tuple[ModelDescription, Path]:
    """Return a model's description and folder, by bundled name or by path.

    The path is that of a folder with a `model.yaml`, or of such a file.
    """
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        return _read(path), path.parent
    if not (path / DESCRIPTION).is_file():
        path = bundled("models") / str(name_or_path)
        if not (path / DESCRIPTION).is_file():
            raise unknown_name("model", str(name_or_path), list_models())
    return _read(path / DESCRIPTION), path


def _read(path: Path) -> ModelDescription:
    """Read a description, and find the folder of its data beside it."""
    description = load_yaml(path, ModelDescription)
    if description.data is None:
        return description
    return description.model_copy(update={"data": find_data(description.data, path.parent)})


def list_models() -> list[str]:
    """Return the names of the bundled networks."""
    return sorted(path.parent.name for path in bundled("models").glob(f"*/{DESCRIPTION}"))


def data_of(name_or_path: str | Path) -> GivenData | None:
    """Return the data that a network names as its own; only a `model.yaml` can name some."""
    if _is_factory(name_or_path) or Path(name_or_path).suffix in (PT2, ONNX):
        return None
    return load_description(name_or_path)[0].data


def load_model(name_or_path: str | Path, images_shape: ShapeOf | None = None) -> Workload:
    """Load a network by one of its names; torch's random state stays as it was.

    A name is that of a bundled network, the path of a `model.yaml` or of its folder, that of a
    .pt2 file of torch.export.save or of an .onnx file, which have their weights, or
    package.module:factory: a function without arguments, in the current folder or installed, that
    returns a torch module. What such a module reads is its `input_shape` (C, H, W), or that of its
    factory. Where neither has one, and where an .onnx file leaves sizes open, it is what
    `images_shape` returns, the shape of one image of the data, which is called only then.

    Raises InputError for an unknown name, a wrong description, mistakes in the user's code, and
    missing or damaged weights.
    """
    if _is_factory(name_or_path):
        module, factory = _load_made(str(name_or_path))
        shape = _input_shape(str(name_or_path), module, factory, images_shape)
        with importable(Path()):
            return capture(module, torch.zeros(1, *shape), str(name_or_path))
    path = Path(name_or_path)
    if path.suffix == PT2:
        return capture_program(load_exported(path), path.stem)
    if path.suffix == ONNX:
        module, fixed = load_onnx(path)
        shape = fixed or _shape_of_images(str(path), images_shape)
        return capture(module, torch.zeros(1, *shape), path.stem)
    description, _ = load_description(name_or_path)
    module = load_module(name_or_path)
    return capture(module, torch.zeros(1, *description.input_shape), description.name)


def load_module(name_or_path: str | Path) -> nn.Module:
    """Load the torch module that `load_model` captures, with its weights, in evaluation mode.

    Raises InputError as `load_model` does, and for a .pt2 file: it holds a graph and no module.
    """
    path = Path(name_or_path)
    if path.suffix == PT2:
        raise InputError(f"{path} holds an exported graph: there is no module to load from it")
    if path.suffix == ONNX:
        return load_onnx(path)[0]
    if _is_factory(name_or_path):
        return _load_made(str(name_or_path))[0]
    description, folder = load_description(name_or_path)
    with _drawing_from(description.seed or 0):
        module, _ = make_module(
            description.architecture, f"model '{description.name}'", folder, description.arguments
        )
    if description.weights is not None:
        load_weights(module, folder / description.weights, description.weights_sha256)
    return module.eval()


def _is_factory(name: str | Path) -> bool:
    return isinstance(name, str) and FACTORY.fullmatch(name) is not None


def _load_made(name: str) -> tuple[nn.Module, Any]:
    """Return the module of a factory in the current folder or installed, and the factory."""
    with _drawing_from(0):
        module, factory = make_module(name, "model", Path())
    return module.eval(), factory


@contextmanager
def _drawing_from(seed: int) -> Iterator[None]:
    """Let random weights follow from a seed, and leave torch's random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _input_shape(
    name: str, module: nn.Module, factory: Any, images_shape: ShapeOf | None
) -> Sequence[int]:
    """Return what one input of a module has as shape, without the batch."""
    for holder in (module, factory):
        stated = getattr(holder, "input_shape", None)
        if stated is None:
            continue
        if (
            not isinstance(stated, Sequence)
            or not 1 <= len(stated) <= 3
            or not all(isinstance(size, int) and size > 0 for size in stated)
        ):
            raise InputError(
                f"model {name}: input_shape is {stated!r}: it must be one to three whole numbers "
                f"above 0, the shape of one image, such as (3, 32, 32)"
            )
        return stated
    return _shape_of_images(name, images_shape)


def _shape_of_images(name: str, images_shape: ShapeOf | None) -> Sequence[int]:
    """Return the shape of the data's images for a network that does not say what it reads."""
    if images_shape is None:
        raise InputError(
            f"model {name}: the shape of its input is not known here: give a module or its factory "
            f"an attribute input_shape, such as (3, 32, 32), fix the sizes in an ONNX file, or "
            f"write a model.yaml; commands take that of the images of --data, too"
        )
    return images_shape()

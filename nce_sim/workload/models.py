"""The bundled networks, and any other that a `model.yaml` describes."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib import import_module
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from pydantic import Field, PositiveInt, model_validator
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from nce_sim.config.bundle import bundled, unknown_name
from nce_sim.config.loader import Strict, load_yaml
from nce_sim.errors import InputError
from nce_sim.workload.capture import capture
from nce_sim.workload.graph import Workload

DESCRIPTION = "model.yaml"


class ModelDescription(Strict):
    """A network: where its module is made and where its weights lie."""

    name: str
    description: str
    architecture: str = Field(pattern=r"^[\w.]+:\w+$", description="package.module:factory")
    arguments: dict[str, Any] = Field(default_factory=dict)
    input_shape: list[PositiveInt] = Field(min_length=1, max_length=3)
    weights: str | None = Field(
        default=None, description="file beside this one: safetensors, or a state_dict of torch.save"
    )
    weights_sha256: str | None = None
    seed: int | None = Field(default=None, ge=0, description="of random weights")
    data: str | None = Field(default=None, description="the data set it was trained on")

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
        return load_yaml(path, ModelDescription), path.parent
    if not (path / DESCRIPTION).is_file():
        path = bundled("models") / str(name_or_path)
        if not (path / DESCRIPTION).is_file():
            raise unknown_name("model", str(name_or_path), list_models())
    return load_yaml(path / DESCRIPTION, ModelDescription), path


def list_models() -> list[str]:
    """Return the names of the bundled networks."""
    return sorted(path.parent.name for path in bundled("models").glob(f"*/{DESCRIPTION}"))


def load_model(name_or_path: str | Path) -> Workload:
    """Load a network by bundled name, or by the path of its folder or `model.yaml`.

    Torch's random state stays as it was.
    Raises InputError for an unknown name, a wrong description, and missing or damaged weights.
    """
    description, _ = load_description(name_or_path)
    module = load_module(name_or_path)
    return capture(module, torch.zeros(1, *description.input_shape), description.name)


def load_module(name_or_path: str | Path) -> nn.Module:
    """Load the torch module that `load_model` captures, with its weights, in evaluation mode."""
    description, folder = load_description(name_or_path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(description.seed or 0)
        module = _build(description, folder)
    if description.weights is not None:
        _load_weights(module, folder / description.weights, description.weights_sha256)
    return module.eval()


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let modules that lie beside a `model.yaml` be imported."""
    place = str(folder.absolute())
    sys.path.insert(0, place)
    try:
        yield
    finally:
        sys.path.remove(place)


def _build(description: ModelDescription, folder: Path) -> nn.Module:
    package, _, factory = description.architecture.partition(":")
    try:
        with _importable(folder):
            module = getattr(import_module(package), factory)(**description.arguments)
    except Exception as reason:  # whatever the user's code raises
        raise InputError(
            f"model '{description.name}': cannot make {description.architecture} with "
            f"{description.arguments}: {type(reason).__name__}: {reason}"
        ) from reason
    if not isinstance(module, nn.Module):
        raise InputError(
            f"model '{description.name}': {description.architecture} returned "
            f"{type(module).__name__}, not a torch module"
        )
    return module


def _load_weights(module: nn.Module, path: Path, expected_sha256: str | None) -> None:
    try:
        content = path.read_bytes()
    except OSError as reason:
        raise InputError(f"cannot read the weights {path}: {reason}") from reason
    found = sha256(content).hexdigest()
    if expected_sha256 is not None and found != expected_sha256:
        raise InputError(
            f"the weights {path} are damaged or others than described: SHA-256 {found}, "
            f"{DESCRIPTION} says {expected_sha256}"
        )
    tensors = _read_tensors(path, content)
    try:
        module.load_state_dict(tensors)
    except (RuntimeError, ValueError) as reason:
        raise InputError(f"the weights {path} do not fit the network: {reason}") from reason


def _read_tensors(path: Path, content: bytes) -> dict[str, Tensor]:
    """Read a state_dict: safetensors, or of torch.save (.pt, .pth) without running code."""
    if path.suffix not in (".pt", ".pth"):
        try:
            return load_tensors(content)
        except SafetensorError as reason:
            raise InputError(f"{path} cannot be read as safetensors: {reason}") from reason
    try:
        held = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as reason:
        raise InputError(
            f"{path} cannot be read as the state_dict of a module, which holds tensors only and "
            f"runs no code: {str(reason).splitlines()[0]}"
        ) from reason
    if not isinstance(held, dict) or not all(isinstance(each, Tensor) for each in held.values()):
        raise InputError(
            f"{path} holds {type(held).__name__} with other things than tensors: save the module's "
            f"state_dict() itself"
        )
    return held

"""Weights from a file: safetensors or torch's own format, checked tensor by tensor.

A torch file is a pickle, and a pickle can run code: only tensors and plain containers are read
from it (`torch.load(weights_only=True)`); a file that names anything else is refused.
"""

import hashlib
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nce_sim.errors import InputError
from nce_sim.workload.timm_names import torchvision_names

WRAPPERS = ("state_dict", "model")
"""Keys under which training scripts keep the tensors of a network among other things."""

DATA_PARALLEL = "module."
"""What torch's DataParallel puts before every name."""

COUNTERS = "num_batches_tracked"
"""BatchNorm's counter of training steps: files of old lack it, and inference does not read it."""


def load_weights(module: nn.Module, path: Path, expected_sha256: str | None = None) -> None:
    """Copy the tensors of a file into `module`.

    Names are those of the module's parameters and buffers; files of timm are renamed where their
    names differ from torchvision's (`timm_names`). Tensors of another floating-point type are
    converted.

    Raises InputError for a file that cannot be read, that is another than `expected_sha256` says,
    or that would run code; and, all at once, for missing, unexpected and misshapen tensors.
    """
    _check_sha256(path, expected_sha256)
    tensors = torchvision_names(_unwrap(_read(path), path))
    needed = module.state_dict()
    wrong = mistakes(tensors, needed)
    if wrong:
        raise InputError(
            f"the weights {path} do not fit the network {type(module).__name__}:\n  "
            + "\n  ".join(wrong)
        )
    module.load_state_dict({**needed, **tensors})


def _check_sha256(path: Path, expected: str | None) -> None:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as reason:
        raise InputError(f"cannot read the weights {path}: {reason}") from reason
    if expected is not None and found != expected:
        raise InputError(
            f"the weights {path} are damaged or others than described: SHA-256 {found}, "
            f"expected is {expected}"
        )


def _read(path: Path) -> object:
    """Return what a file holds; a safetensors file has a JSON object after eight bytes."""
    with path.open("rb") as file:
        beginning = file.read(9)
    if path.suffix == ".safetensors" or beginning[8:] == b"{":
        try:
            return load_file(path)
        except (SafetensorError, ValueError, OSError) as reason:
            raise InputError(f"the weights {path} are no safetensors file: {reason}") from reason
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd files, before they are refused
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as reason:
        named = re.search(r"GLOBAL (\S+)", str(reason))
        what = named[1] if named else f"what torch refuses ({_cause(reason)})"
        raise InputError(
            f"the weights {path} are refused: besides tensors they name {what}, and reading that "
            f"could run code. Where you trust the file, save its tensors alone: "
            f"torch.save(network.state_dict(), ...)"
        ) from reason
    except Exception as reason:  # torch raises what it likes on files that are none of its own
        raise InputError(
            f"the weights {path} are neither safetensors nor a torch file of tensors, or damaged: "
            f"{type(reason).__name__}: {_cause(reason)}"
        ) from reason


def _cause(reason: Exception) -> str:
    """Return what torch found, without its advice to trust the file."""
    found = re.search(r"WeightsUnpickler error: (.*)", str(reason))
    text = found[1] if found else str(reason).partition(" In PyTorch")[0]
    return text.strip().partition("\n")[0]


def _unwrap(content: object, path: Path) -> dict[str, Tensor]:
    """Return the tensors by name, without what a training script wrapped around them."""
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        raise InputError(
            f"the weights {path} hold {type(content).__name__}, not tensors by name: save "
            f"network.state_dict()"
        )
    others = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise InputError(
            f"the weights {path} hold other things than tensors: {', '.join(others)}; tensors may "
            f"lie in them under {' or '.join(WRAPPERS)}"
        )
    prefix = DATA_PARALLEL if all(str(name).startswith(DATA_PARALLEL) for name in content) else ""
    return {str(name).removeprefix(prefix): value for name, value in content.items()}


def mistakes(found: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> list[str]:
    """Return a line for each tensor that is missing, misshapen, of whole numbers, or unexpected."""
    lines = []
    for name, tensor in needed.items():
        if name not in found:
            if not name.endswith(COUNTERS):
                lines.append(f"{name}: missing, shape {_shape(tensor)} is needed")
        elif found[name].shape != tensor.shape:
            lines.append(f"{name}: shape {_shape(found[name])}, {_shape(tensor)} is needed")
        elif found[name].is_floating_point() != tensor.is_floating_point():
            lines.append(f"{name}: type {found[name].dtype}, {tensor.dtype} is needed")
    for name, tensor in found.items():
        if name not in needed:
            lines.append(f"{name}: unexpected, shape {_shape(tensor)}")
    return lines


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "of one number"

"""Networks in ONNX files, which onnx2torch turns into torch modules (extra `nce-sim[onnx]`).

The file is a record of operations and tensors, but onnx2torch writes the names of its operations
into Python source, unquoted: they are made plain before it sees them.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from nce_sim.errors import InputError

SUFFIX = ".onnx"

TORCHVISION = "torchvision"


def load_onnx(path: Path) -> tuple[nn.Module, Sequence[int] | None]:
    """Return the module of an ONNX file, and the shape of one image if the file fixes it.

    Raises InputError for a missing extra, a file that cannot be read, one that reads anything but
    one tensor, and operations that onnx2torch does not know.
    """
    try:
        import onnx

        with _any_torchvision():
            from onnx2torch import convert
    except ImportError as reason:
        raise InputError(
            f"{path} is an ONNX file: install what reads it with pip install 'nce-sim[onnx]' "
            f"({reason})"
        ) from reason
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as reason:  # onnx and protobuf raise many kinds for files that are none
        raise InputError(f"cannot read the ONNX file {path}: {_line(reason)}") from reason
    shape = _image_shape(path, model)
    for node in model.graph.node:
        node.name = re.sub(r"\W", "_", node.name)
    try:
        return convert(model).eval(), shape
    except Exception as reason:  # a converter fails in its own ways
        raise InputError(
            f"{path} cannot be converted by onnx2torch: {type(reason).__name__}: {_line(reason)}"
        ) from reason


@contextmanager
def _any_torchvision() -> Iterator[None]:
    """Let onnx2torch be imported whatever torchvision there is.

    It takes two operations of object detectors from torchvision, which is loaded only beside a
    torch of the same build: the one of PyPI fails beside a torch for the processor alone. Where it
    fails, empty modules stand in for it, and files with these operations are refused.
    """
    try:
        import torchvision  # type: ignore[import-not-found]  # noqa: F401
    except Exception:  # what it raises differs
        names = [name for name in sys.modules if name.split(".")[0] == TORCHVISION]
        broken = {name: sys.modules.pop(name) for name in names}
        stand_in, operations = ModuleType(TORCHVISION), ModuleType(f"{TORCHVISION}.ops")
        operations.roi_align = _refuse  # type: ignore[attr-defined]
        stand_in.ops = operations  # type: ignore[attr-defined]
        sys.modules |= {TORCHVISION: stand_in, operations.__name__: operations}
        try:
            yield
        finally:
            del sys.modules[TORCHVISION], sys.modules[operations.__name__]
            sys.modules |= broken
    else:
        yield


def _refuse(*_: object, **__: object) -> None:
    raise InputError("RoiAlign needs a torchvision that can be loaded")


def _image_shape(path: Path, model: Any) -> Sequence[int] | None:
    """Return the shape of the one input without its batch; None where a size is left open."""
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in stored]
    if len(inputs) != 1 or not inputs[0].type.HasField("tensor_type"):
        names = ", ".join(each.name for each in inputs) or "none"
        raise InputError(f"{path} has as inputs {names}: it must read one tensor of images")
    sizes = [size.dim_value for size in inputs[0].type.tensor_type.shape.dim][1:]
    return sizes if sizes and all(size > 0 for size in sizes) else None


def _line(reason: Exception) -> str:
    return str(reason).strip().partition("\n")[0]

"""Networks in ONNX files, which onnx2torch turns into torch modules (extra `nce-sim[onnx]`).

The file is a record of operations and tensors, but onnx2torch writes the names of its operations
into Python source, unquoted: they are made plain before it sees them.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from nce_sim.errors import InputError

SUFFIX = ".onnx"


def load_onnx(path: Path) -> tuple[nn.Module, Sequence[int] | None]:
    """Return the module of an ONNX file, and the shape of one image if the file fixes it.

    Raises InputError for a missing extra, a file that cannot be read, one that reads anything but
    one tensor, and operations that onnx2torch does not know.
    """
    try:
        import onnx
        from onnx2torch import convert
    except ImportError as reason:
        raise InputError(
            f"{path} is an ONNX file: install what reads it with pip install 'nce-sim[onnx]' "
            f"({reason})"
        ) from reason
    except Exception as reason:  # a torchvision for another build of torch raises what it likes
        raise InputError(
            f"{path} is an ONNX file, and onnx2torch cannot be loaded ({_line(reason)}): it needs "
            f"a torchvision of the same build as torch; for a torch of the processor alone, "
            f"pip install torchvision --index-url https://download.pytorch.org/whl/cpu"
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

"""Options that many commands have."""

from pathlib import Path
from typing import Annotated

import typer

from nce_sim.errors import InputError
from nce_sim.files import check_writable

MODEL_HELP = "Bundled network, path of a model.yaml, .pt2 or .onnx file, or package.module:factory."
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Images in place of the model's own: a name, NAME=FOLDER, or path of a data.yaml.",
    ),
]
SeedOption = Annotated[int, typer.Option(min=0, help="Of all random draws.")]


def check_trace(path: Path | None) -> None:
    """Raise InputError unless a trace can be written there; it costs nothing to know at once."""
    if path is None:
        return
    if not path.name.endswith((".json", ".json.gz")):
        raise InputError(f"--trace {path} must end in .json or .json.gz")
    if path.is_dir():
        raise InputError(f"--trace {path} is a folder: name a file for the trace")
    check_writable(path.parent, "--trace")

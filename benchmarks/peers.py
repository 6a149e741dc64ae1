"""The peers: how to install them without replacing torch, and how to import them beside it."""

import importlib
import importlib.metadata
import importlib.util
import sys
from types import ModuleType

from benchmarks.timing import Missing

INSTALL = {
    "captum": "pip install 'nce-sim[bench]'",
    "scalesim": "pip install 'nce-sim[bench]'",
    "zennit": "pip install --no-deps zennit",
    "mrfi": "pip install --no-deps mrfi",
    "pytorchfi": "pip install --no-deps pytorchfi",
}
"""How to install each. Those with --no-deps ask for torchvision, which would bring its own torch;
all else that they need nce-sim needs as well."""

TORCHVISION = (
    "torchvision", "torchvision.models", "torchvision.models.resnet", "torchvision.ops",
    "torchvision.transforms", "torchvision.datasets",
)  # fmt: skip


def load(name: str) -> ModuleType:
    """Import a peer's module; where torchvision is missing, an empty one takes its place.

    Raises Missing, with the command that installs it, for a peer that is not there.
    """
    package = name.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        raise Missing(f"not installed: {INSTALL[package]}")
    if "torchvision" not in sys.modules and importlib.util.find_spec("torchvision") is None:
        _stand_in_for_torchvision()
    return importlib.import_module(name)


def version(name: str) -> str:
    """Return an installed package's version."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


class _StandIn(ModuleType):
    """A module in which every name is an empty class: the peers only import torchvision."""

    def __getattr__(self, name: str) -> type:
        """Return an empty class, but none of Python's own names."""
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def _stand_in_for_torchvision() -> None:
    for place in TORCHVISION:
        module = _StandIn(place)
        module.__path__ = []
        sys.modules[place] = module
        parent, _, name = place.rpartition(".")
        if parent:
            setattr(sys.modules[parent], name, module)

"""Where the machines, models, traces and data that travel with the package lie."""

from pathlib import Path

from nce_sim.errors import InputError

PACKAGE = Path(__file__).resolve().parent.parent


def bundled(folder: str) -> Path:
    """Return a bundled folder, such as "hw_configs", "models", "traces" or "scenarios".

    A wheel carries them inside the package; a checkout has them beside it.
    """
    for candidate in (PACKAGE / "bundled" / folder, PACKAGE.parent / folder):
        if candidate.is_dir():
            return candidate
    raise InputError(f"nce-sim is installed without its folder '{folder}/': install it again")


def named_file(kind: str, name_or_path: str | Path, *folders: str) -> Path:
    """Return the YAML file of a bundled name, or the path itself if one is given.

    `folders` lead to the bundled files. Raises InputError for an unknown name; `kind` says of what.
    """
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        return path
    folder = bundled(folders[0]).joinpath(*folders[1:])
    if not (folder / f"{name_or_path}.yaml").is_file():
        raise unknown_name(kind, str(name_or_path), names_in(*folders))
    return folder / f"{name_or_path}.yaml"


def names_in(*folders: str) -> list[str]:
    """Return the names of the YAML files of a bundled folder."""
    return sorted(path.stem for path in bundled(folders[0]).joinpath(*folders[1:]).glob("*.yaml"))


def unknown_name(kind: str, given: str, known: list[str]) -> InputError:
    """Return the error for a name that is neither bundled nor a path."""
    return InputError(
        f"unknown {kind} '{given}': bundled are {', '.join(sorted(known))}; "
        f"'nce-sim list' describes them, and a path works too"
    )

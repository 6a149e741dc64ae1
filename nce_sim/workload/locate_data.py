"""Where the files of a published data set lie: with the user, in the bundle, or fetched."""

import os
from pathlib import Path

import pooch

from nce_sim.config.bundle import bundled
from nce_sim.errors import InputError
from nce_sim.workload.dataset_descriptions import DatasetDescription, Download, Part

VARIABLE = "NCE_SIM_DATA"
"""The environment variable with a folder that holds one folder a data set, by name."""


def locate(known: DatasetDescription, part: Part, folder: str | None) -> Path:
    """Return the folder, or the archive, with a part's files.

    It is the user's `folder`; or the bundle; or the data set's in $NCE_SIM_DATA, or the system's;
    or what is downloaded once, and checked. Raises InputError if there is none.
    """
    if folder is not None:
        return Path(folder)
    if part.bundled:
        return bundled("datasets") / known.name
    home = os.environ.get(VARIABLE)
    if home and (Path(home) / known.name).is_dir():
        return Path(home) / known.name
    if known.system is not None and all((known.system.folder / file).is_file()
                                        for file in part.files):  # fmt: skip
        return known.system.folder
    if known.download is None:
        raise InputError(
            f"{known.name} cannot be downloaded (licence: {known.licence}): get it from "
            f"{known.page}, and name its folder as {known.name}=FOLDER, or put it into "
            f"${VARIABLE}/{known.name}"
        )
    files = part.files if known.download.archive is None else (known.download.archive,)
    fetched = [_fetch(known, known.download, file) for file in files]
    return fetched[0] if known.download.archive is not None else fetched[0].parent


def _fetch(known: DatasetDescription, download: Download, file: str) -> Path:
    """Fetch a file into the user's cache, unless it is there, and check it."""
    try:
        fetched = pooch.retrieve(
            download.url + file, known_hash=f"md5:{download.md5[file]}", fname=file,
            path=Path(pooch.os_cache("nce-sim")) / known.name,
        )  # fmt: skip
    except (OSError, ValueError) as reason:
        package = "" if known.system is None else f"install {known.system.package}, or "
        raise InputError(
            f"{download.url}{file} could not be fetched ({reason}): {package}get it from "
            f"{known.page}, and name its folder as {known.name}=FOLDER, or put it into "
            f"${VARIABLE}/{known.name}"
        ) from reason
    return Path(fetched)

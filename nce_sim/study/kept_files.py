"""Files that are written whole or not at all, by many processes at once, and end in a checksum.

A file is written under a name of its writer's own and renamed, so that a killed process or a full
disk leaves no half file under a final name. It is not forced out to the disk: renamed files outlive
the process that wrote them, and what a power cut damages the checksum finds.
"""

import os
import re
import socket
import threading
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

SEAL = re.compile(rb"\n[0-9a-f]{64}\n\Z")


def seal(content: bytes) -> bytes:
    """Return `content` with its SHA-256 in a last line."""
    return b"%s\n%s\n" % (content, sha256(content).hexdigest().encode())


def unseal(sealed: bytes) -> bytes | None:
    """Return the content of a sealed file; None if it is damaged."""
    if SEAL.search(sealed[-66:]) is None:
        return None
    content = sealed[:-66]
    return content if sealed[-65:-1].decode() == sha256(content).hexdigest() else None


def write_whole(path: Path, content: bytes, unfinished: Path) -> None:
    """Write a file under a temporary name in the folder `unfinished`, then rename it to `path`.

    Missing folders are made. Raises OSError; nothing is left behind then.
    """
    temporary = unfinished / (
        f"{os.getpid()}.{threading.get_ident()}.{socket.gethostname()}.{path.name}"
    )
    try:
        for last in (False, False, True):
            try:
                temporary.write_bytes(content)
                os.replace(temporary, path)
                return
            except FileNotFoundError:  # a folder is missing, or another process tidied up
                if last:
                    raise
                unfinished.mkdir(parents=True, exist_ok=True)
                path.parent.mkdir(parents=True, exist_ok=True)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def remove_abandoned(unfinished: Path) -> None:
    """Delete the temporary files of processes of this machine that are dead.

    Should one be alive after all (processes in containers may not see each other), its
    `write_whole` notices and writes the file again.
    """
    ours = re.compile(rf"(\d+)\.\d+\.{re.escape(socket.gethostname())}\.")
    with suppress(OSError):
        for path in unfinished.iterdir():
            if (name := ours.match(path.name)) and not _is_alive(int(name[1])):
                path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True

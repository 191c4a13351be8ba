"""A file that lies beside a `.batch` file and is brought to nodes: what of it stands in the document."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from wire.bounds import MAX_FILE_BYTES

_STEP: Final = 1024 * 1024
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Beside:
    """Of its content the document holds the sha256 alone."""

    digest: str
    size: int
    mode: int
    """Its permission bits: who runs the command, and for whom, is another matter than whose the file is here."""


ReadBeside = Callable[[str], Beside]
"""Takes the path as written. Raises OSError with a reason for people."""


def open_beside(directory: str, path: str) -> int:
    """The regular file at `path`, opened. It lies in `directory` or below, also where links lead. Raises OSError."""
    above = os.path.realpath(directory)
    found = os.path.realpath(os.path.join(above, path))
    if os.path.commonpath([above, found]) != above:
        raise OSError("a link leads out of the directory of the file that names it")
    # What was looked at is what is opened: no part of the way may have become a link meanwhile.
    *ways, name = os.path.relpath(found, above).split("/")
    here = os.open(above, _DIRECTORY)
    try:
        for way in ways:
            below = os.open(way, _DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = below
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
    finally:
        os.close(here)
    try:
        found_as = os.fstat(fd)
        if not stat.S_ISREG(found_as.st_mode):
            raise OSError("it is no regular file")
        if found_as.st_size > MAX_FILE_BYTES:
            raise OSError(f"it is larger than {MAX_FILE_BYTES >> 20} MiB: let nodes fetch it with `url`")
    except OSError:
        os.close(fd)
        raise
    return fd


def reader(directory: str) -> ReadBeside:
    """Reads what lies in `directory` and below."""

    def read(path: str) -> Beside:
        import hashlib  # few files name another

        with open(open_beside(directory, path), "rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o777
            digest, size = hashlib.sha256(), 0
            while piece := file.read(_STEP):
                digest.update(piece)
                size += len(piece)
        return Beside(digest.hexdigest(), size, mode)

    return read

"""A directory of the user's own, closed to everyone else, for what is slow to make and safe to lose."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

_OPENED: Final = os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def private_directory() -> Iterator[int]:
    """`$XDG_CACHE_HOME/poolkeeper` (or `~/.cache/poolkeeper`) with mode 0700, as a descriptor. Raises OSError.

    How a file is understood hangs on what lies there: a directory that is another's, open to others or a link is not
    used.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not base.startswith("/"):
        base = os.path.expanduser("~/.cache")
    if not base.startswith("/"):
        raise FileNotFoundError("the user has no home directory")
    path = os.path.join(base, "poolkeeper")
    os.makedirs(path, 0o700, exist_ok=True)
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _OPENED)
    try:
        found = os.fstat(directory)
        if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise PermissionError(f"{path} is open to others")
        yield directory
    finally:
        os.close(directory)


def kept(name: str) -> str | None:
    """What `keep` wrote under this name, or None when there is nothing to be read."""
    with suppress(OSError, UnicodeDecodeError), private_directory() as directory:
        fd = os.open(name, os.O_RDONLY | _OPENED, dir_fd=directory)
        with open(fd, encoding="utf-8") as file:
            return file.read()
    return None


def keep(name: str, content: str) -> None:
    """Write it, whole or not at all. Where that fails nothing is kept: it can be made again."""
    with suppress(OSError), private_directory() as directory:
        fresh = f"{name}.{os.getpid()}"
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _OPENED, 0o600, dir_fd=directory)
        try:
            with open(fd, "w", encoding="utf-8") as file:
                file.write(content)
            os.replace(fresh, name, src_dir_fd=directory, dst_dir_fd=directory)
        except OSError:
            os.unlink(fresh, dir_fd=directory)
            raise

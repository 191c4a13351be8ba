"""A directory of the user's own, closed to everyone else, for what is slow to build and safe to lose."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path


def private_directory() -> Path | None:
    """`$XDG_CACHE_HOME/poolkeeper` (or `~/.cache/poolkeeper`) with mode 0700, or None when there can't be one.

    What lies there is loaded as code, so a directory that is another's, open to others or a link is not used.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    home = Path(base) if base.startswith("/") else Path.home() / ".cache" if _has_home() else None
    if home is None:
        return None
    path = home / "poolkeeper"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError:
        return None
    closed = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
    return path if closed else None


def _has_home() -> bool:
    try:
        Path.home()
    except RuntimeError:
        return False
    return True


def read_sealed(path: Path) -> bytes | None:
    """What `write_sealed` kept, or None when it is not there or not whole."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    seal, body = content[:32], content[32:]
    return body if seal == hashlib.sha256(body).digest() else None


def write_sealed(path: Path, body: bytes) -> None:
    """Keep it, whole or not at all. Where that fails nothing is kept: it can be made again."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        fresh.write_bytes(hashlib.sha256(body).digest() + body)
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)

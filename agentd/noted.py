"""Small facts that one life of the agent notes for the next: each stands whole, or as it was before.

A job may keep the disk full, and what frees it is its release: so an agent starts there, too.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Final

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def noted(path: Path) -> bytes | None:
    """What stands there; None: nothing. Raises OSError."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def note(path: Path, content: bytes, mode: int = 0o600) -> bool:
    """Have this stand there. Whether it does: on a full disk, if anything else stood there, that stays. Raises
    OSError."""
    if noted(path) == content:
        return True
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_bytes(content)
        fresh.chmod(mode)
        fresh.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        if error.errno not in _FULL:
            raise
        return False
    return True

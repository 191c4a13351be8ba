"""Files that commands bring in, as they lie with their job's scripts: taken piece by piece, verified, then readable."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
from dataclasses import dataclass
from typing import Final

from agentd.beneath import DIRECTORY, FilesError, closing, plain
from agentd.model import HELD

_DIGEST: Final = re.compile(r"[0-9a-f]{64}\Z")
_PART: Final = ".part"
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_APPEND: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Taken:
    """So many bytes are held; `whole`: all of them, durable, and of the digest that was announced."""

    held: int
    whole: bool = False


class HeldFiles:
    """Files below one directory handle, a directory for each job as `NodeFiles.make_job` makes it. Invariant: what has
    no `.part` to its name is whole."""

    def __init__(self, scripts: int) -> None:
        self._scripts = scripts

    def take(
        self, job: str, digest: str, size: int, offset: int, content: bytes, *, path: str, reader: int | None
    ) -> Taken:
        """Put a piece behind what is there, if it is the next one. `reader`: the group that may read it when it is
        whole, None: only we. `path` is for people. Raises FilesError, which begins with the kind of failure."""
        if not _DIGEST.match(digest):
            raise FilesError(f"DownloadFailed: {path}: what was announced is no digest.")
        try:
            with closing(os.open(plain(job), DIRECTORY, dir_fd=self._scripts)) as here:
                return self._take(here, HELD + digest, size, offset, content, path, reader)
        except OSError as error:
            if error.errno in _FULL:
                raise FilesError(f"DiskFull: no room on the node for {path}.") from None
            raise FilesError(f"DownloadFailed: could not keep {path} here: {error.strerror}.") from None

    def _take(
        self, here: int, name: str, size: int, offset: int, content: bytes, path: str, reader: int | None
    ) -> Taken:
        with contextlib.suppress(FileNotFoundError):
            return Taken(os.stat(name, dir_fd=here, follow_symlinks=False).st_size, whole=True)
        with closing(os.open(name + _PART, _APPEND, 0o600, dir_fd=here)) as part:
            held = os.fstat(part).st_size
            if content and offset == held and held + len(content) <= size:
                _append(part, content, held)
                held += len(content)
            if held < size:
                return Taken(held)
            if _digest_of(here, name + _PART) != name.removeprefix(HELD) or held != size:
                os.unlink(name + _PART, dir_fd=here)
                raise FilesError(f"DigestMismatch: {path} came from the coordinator with another content.")
            if reader is not None:
                os.fchown(part, -1, reader)
            os.fchmod(part, 0o400 if reader is None else 0o440)
            os.fsync(part)
        os.rename(name + _PART, name, src_dir_fd=here, dst_dir_fd=here)
        os.fsync(here)
        return Taken(size, whole=True)


def _append(part: int, content: bytes, held: int) -> None:
    """All of it or nothing: half a piece would pass for bytes that were taken."""
    left = memoryview(content)
    try:
        while left:
            left = left[os.write(part, left) :]
    except OSError:
        os.ftruncate(part, held)
        raise


def _digest_of(here: int, name: str) -> str:
    with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

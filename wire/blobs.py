"""What fits no frame: documents, and files that jobs bring to nodes. Each is named by its sha256, brought in pieces,
resumable, and counted per owner."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Final

from wire import limits
from wire.ledger import translated_os

_DIGEST: Final = re.compile(r"[0-9a-f]{64}\Z")
_PART: Final = ".part"
EXPIRE_S: Final = 86_400.0
"""An upload nobody went on with for so long is given up."""


class BlobRefused(Exception):
    """A piece that can't be taken, or a blob that is not here. The text is a sentence for the submitter."""


class Blobs:
    """Blobs below one directory. Invariant: a file without `.part` is complete, durable and has the sha256 it is
    named after. Callable from any thread."""

    def __init__(
        self, directory: Path, *, max_blob: int = limits.MAX_DOCUMENT, max_held: int = limits.MAX_HELD_PER_OWNER
    ) -> None:
        self._directory = directory
        self._max_blob = max_blob
        self._max_held = max_held
        self._one_at_a_time = threading.Lock()

    def take(self, owner: str, digest: str, offset: int, size: int, content: bytes) -> int:
        """Take the piece if it is the next one; bytes held afterwards. A piece of nothing only asks.
        Raises BlobRefused, StoreFull, StoreError."""
        self._check(digest, offset, size, content)
        with self._one_at_a_time:
            shelf = self._shelf(owner)
            try:
                return self._take(shelf, digest, offset, size, content)
            except OSError as error:
                raise translated_os(error, shelf) from None

    def read(self, owner: str, digest: str) -> bytes:
        """A complete document. Raises BlobRefused, StoreError."""
        if not _DIGEST.match(digest):
            raise BlobRefused("a digest is 64 hexadecimal digits; this one is not")
        path = self._shelf(owner) / digest
        try:
            with open(path, "rb") as file:
                content = file.read(limits.MAX_DOCUMENT + 1)
            if len(content) > limits.MAX_DOCUMENT:
                raise BlobRefused(f"a document has at most {limits.MAX_DOCUMENT} bytes")
            return content
        except FileNotFoundError:
            raise BlobRefused(f"no upload {digest[:12]} is complete here: upload the document again") from None
        except OSError as error:
            raise translated_os(error, path) from None

    def lacks(self, owner: str, digest: str) -> bool:
        """Whether this owner has not brought it. What is here is not given up for a while. Raises StoreError."""
        path = self._shelf(owner) / digest
        try:
            os.utime(path)
        except FileNotFoundError:
            return True
        except OSError as error:
            raise translated_os(error, path) from None
        return False

    def piece(self, digest: str, offset: int) -> bytes:
        """The next bytes of a complete blob, whoever brought it. Raises BlobRefused, StoreError."""
        if not _DIGEST.match(digest) or offset < 0:
            raise BlobRefused("no such piece is here")
        for path in self._directory.glob(f"*/{digest}"):
            try:
                with open(path, "rb") as file:
                    file.seek(offset)
                    return file.read(limits.MAX_CHUNK)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise translated_os(error, path) from None
        raise BlobRefused(f"no file {digest[:12]} is here any more: submit the job again")

    def forget(self, owner: str, digest: str) -> None:
        """It is not needed any more."""
        if _DIGEST.match(digest):
            with self._one_at_a_time, contextlib.suppress(FileNotFoundError):
                os.unlink(self._shelf(owner) / digest)

    def expire(self, now_wall: float, named: Collection[str] = (), after_s: float = EXPIRE_S) -> None:
        """Remove what was last touched longer ago, and is not among those that jobs name."""
        with self._one_at_a_time:
            for path in self._directory.glob("*/*"):
                with contextlib.suppress(FileNotFoundError):
                    if path.name not in named and now_wall - path.stat().st_mtime > after_s:
                        path.unlink()

    def _check(self, digest: str, offset: int, size: int, content: bytes) -> None:
        if not _DIGEST.match(digest):
            raise BlobRefused("a digest is 64 hexadecimal digits; this one is not")
        if not 0 < size <= self._max_blob:
            raise BlobRefused(f"an upload has 1 to {self._max_blob} bytes here; this one has {size}")
        if len(content) > limits.MAX_CHUNK:
            raise BlobRefused(f"a piece has at most {limits.MAX_CHUNK} bytes; this one has {len(content)}")
        if offset < 0 or offset + len(content) > size:
            raise BlobRefused("a piece lies within its upload; this one does not")

    def _shelf(self, owner: str) -> Path:
        return self._directory / hashlib.sha256(owner.encode("utf-8", "surrogateescape")).hexdigest()[:32]

    def _take(self, shelf: Path, digest: str, offset: int, size: int, content: bytes) -> int:
        shelf.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (shelf / digest).exists():
            return (shelf / digest).stat().st_size
        part = shelf / (digest + _PART)
        held = part.stat().st_size if part.exists() else 0
        if not content or offset != held:
            return held
        used = sum(entry.stat().st_size for entry in os.scandir(shelf))
        if used - held + size > self._max_held:
            raise BlobRefused(
                f"{used} bytes of your uploads lie here already, {self._max_held} are allowed: submit, wait a day, or "
                "delete jobs that are over (what no job names goes after a day)"
            )
        _append(part, held, content)
        held += len(content)
        if held >= size:
            self._finish(part, shelf / digest)
        return held

    def _finish(self, part: Path, whole: Path) -> None:
        with open(part, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            if found == whole.name:
                os.fsync(file.fileno())
        if found != whole.name:
            part.unlink()
            raise BlobRefused("the upload does not have the digest it was announced with: upload it again")
        part.rename(whole)
        for directory in (whole.parent, whole.parent.parent):
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


def _append(part: Path, held: int, content: bytes) -> None:
    """All of the piece or nothing: half a piece would pass for bytes that were taken."""
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(fd, left) :]
    except OSError:
        os.ftruncate(fd, held)
        raise
    finally:
        os.close(fd)

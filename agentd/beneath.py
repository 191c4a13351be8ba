"""Opening below a directory handle: through no link, onto no mount, never out; and errors of the file system in words.

Whoever has files below a node's root may swap them at any moment. So nothing is done by a path: a name is opened below
a handle, the handle is looked at, and what is done is done to the handle.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from typing import Final


class FilesError(Exception):
    """Something on disk could not be done; the text is a sentence for people. `missing`: there is no such file."""

    def __init__(self, reason: str, missing: bool = False) -> None:
        super().__init__(reason)
        self.missing = missing


_MEANINGS: Final = {
    errno.ENOENT: "there is no such file",
    errno.ENOTDIR: "a part of its path is no directory",
    errno.ELOOP: "it is, or leads through, a link, and links are not followed here",
    errno.EXDEV: "it leads out of the node's root or into another file system",
    errno.EACCES: "the node's user may not",
    errno.EPERM: "the node's user may not",
    errno.ENOSPC: "no space is left on the node's disk",
    errno.EDQUOT: "the disk quota of the node's user is used up",
    errno.EROFS: "the file system is read-only",
    errno.EBUSY: "something is mounted there",
    errno.ENAMETOOLONG: "a name in it is too long",
}


def meaning(error: OSError) -> str:
    """An error of the system in words."""
    return _MEANINGS.get(error.errno or 0) or (error.strerror or str(error)).lower()


def sentence(error: OSError, doing: str) -> str:
    """What was being done, and why it could not be."""
    return f"Could not {doing}: {meaning(error)}."


def shown(name: str) -> str:
    """A name of the file system, which may be no text, as text of one line."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)


def plain(name: str) -> str:
    """A name that is one component of a path. Raises FilesError."""
    if not name or name in (".", "..") or "/" in name or "\0" in name:
        raise FilesError(f"{name!r} is no name for a directory.")
    return name


# ---- opening


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


_SYS_OPENAT2: Final = 437
_NO_XDEV: Final = 0x01
_NO_MAGICLINKS: Final = 0x02
_NO_SYMLINKS: Final = 0x04
_BENEATH: Final = 0x08
_INSIDE: Final = _NO_MAGICLINKS | _NO_SYMLINKS | _BENEATH
_AT_EMPTY_PATH: Final = 0x1000
DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
PATH: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
"""A handle to look at and to be done things to; opening it does nothing, whatever it is of."""
_libc: Final = ctypes.CDLL(None, use_errno=True)


def _openat2(directory: int, path: str, flags: int, resolve: int) -> int:
    """Raises OSError; ENOSYS where the kernel has no such call."""
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve)
    fd: int = _libc.syscall(
        _SYS_OPENAT2, directory, os.fsencode(path), ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
    )
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return fd


def _can_openat2() -> bool:
    try:
        os.close(_openat2(-100, ".", os.O_PATH, 0))
    except OSError as error:
        return error.errno not in (errno.ENOSYS, errno.EPERM)
    return True


has_openat2 = _can_openat2()
"""Without it every component is opened by itself."""


def open_beneath(directory: int, path: str, flags: int, *, one_mount: bool = False) -> int:
    """Open `path` below a directory handle, through no link and never out of it; with `one_mount` not onto what is
    mounted below either. Raises OSError."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    if "\0" in path:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if has_openat2:
        resolve = _INSIDE | _NO_XDEV if one_mount else _INSIDE
        return _openat2(directory, "/".join(parts) or ".", flags | os.O_NOFOLLOW, resolve)
    here = os.dup(directory)
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        try:
            below = os.open(part, (flags | os.O_NOFOLLOW | os.O_CLOEXEC) if last else DIRECTORY, dir_fd=here)
        finally:
            os.close(here)
        here = below
    refusal = None
    if parts and flags & os.O_PATH and stat.S_ISLNK(os.fstat(here).st_mode):
        refusal = errno.ELOOP
    elif one_mount and _mount_of(here) != _mount_of(directory):
        refusal = errno.EXDEV
    if refusal is not None:
        os.close(here)
        raise OSError(refusal, os.strerror(refusal), path)
    return here


def open_entry(parent: int, name: str, flags: int) -> int:
    """Open one entry of a directory, not followed if it is a link, which only PATH can open; EXDEV if something is
    mounted on it. Raises OSError."""
    flags |= os.O_NOFOLLOW
    if has_openat2 and not flags & os.O_PATH:
        return _openat2(parent, name, flags, _INSIDE | _NO_XDEV)
    fd = os.open(name, flags | os.O_CLOEXEC, dir_fd=parent)
    if _mount_of(fd) != _mount_of(parent):
        os.close(fd)
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
    return fd


def _mount_of(fd: int) -> bytes:
    with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
        return next(line for line in file if line.startswith(b"mnt_id:"))


@contextlib.contextmanager
def closing(fd: int) -> Iterator[int]:
    """The handle, closed afterwards."""
    try:
        yield fd
    finally:
        os.close(fd)


def reopened(held: int, flags: int) -> int:
    """A handle of the same file that can do more: what it is was looked at before. Raises OSError."""
    return os.open(f"/proc/self/fd/{held}", flags | os.O_CLOEXEC)


# ---- changing what a handle is of


def change_owner(held: int, uid: int, gid: int) -> None:
    """Of whatever a handle is of, a PATH one too. Raises OSError."""
    if _libc.fchownat(held, b"", uid, gid, _AT_EMPTY_PATH) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def change_mode(held: int, mode: int) -> None:
    """Of whatever a handle is of, but a link. Raises OSError."""
    os.chmod(f"/proc/self/fd/{held}", mode)


_LONG: Final = struct.calcsize("@L")
_GET_FLAGS: Final = 0x8000_6601 | _LONG << 16
_SET_FLAGS: Final = 0x4000_6602 | _LONG << 16
_FIXED: Final = 0x10 | 0x20
"""Immutable, append-only."""


def unfix(held: int) -> bool:
    """Clear the flags of a file or directory that keep even root from removing it; whether one was set. Not of a file
    with another name: that may be outside, and somebody's."""
    found = os.fstat(held)
    if not stat.S_ISDIR(found.st_mode) and (not stat.S_ISREG(found.st_mode) or found.st_nlink != 1):
        return False
    try:
        with closing(reopened(held, os.O_RDONLY | os.O_NONBLOCK)) as fd:
            flags = struct.unpack("@L", fcntl.ioctl(fd, _GET_FLAGS, bytes(_LONG)))[0]
            if flags & _FIXED:
                fcntl.ioctl(fd, _SET_FLAGS, struct.pack("@L", flags & ~_FIXED))
            return bool(flags & _FIXED)
    except OSError:
        return False  # a file system without them, or not ours to change

"""Removing a directory tree: below directory handles, never through a link, never into another mount."""

from __future__ import annotations

import os
import stat
from typing import Final

_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_entries(directory: str, keep: frozenset[str] = frozenset()) -> list[str]:
    """Empty a directory except for `keep`; gives what could not be removed, as paths with reasons."""
    left: list[str] = []
    try:
        fd = os.open(directory, _OPEN)
    except OSError as error:
        return [f"{directory}: {error.strerror}"]
    try:
        _empty(fd, directory, os.fstat(fd).st_dev, left, keep)
    finally:
        os.close(fd)
    return left


def _empty(fd: int, path: str, device: int, left: list[str], keep: frozenset[str] = frozenset()) -> None:
    with os.scandir(fd) as entries:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries if entry.name not in keep]
    for name, is_directory in names:
        try:
            if is_directory:
                _remove_directory(fd, name, f"{path}/{name}", device, left)
            else:
                os.unlink(name, dir_fd=fd)
        except OSError as error:
            left.append(f"{path}/{name}: {error.strerror}")


def _remove_directory(parent: int, name: str, path: str, device: int, left: list[str]) -> None:
    fd = _opened(parent, name)
    try:
        found = os.fstat(fd)
        if found.st_dev != device:
            left.append(f"{path}: something is mounted there")
            return
        if found.st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.fchmod(fd, stat.S_IRWXU)
        _empty(fd, path, device, left)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent)


def _opened(parent: int, name: str) -> int:
    """A handle on a directory, also on one that a command has closed to its own user."""
    try:
        return os.open(name, _OPEN, dir_fd=parent)
    except PermissionError:
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            raise
        os.chmod(name, stat.S_IRWXU, dir_fd=parent)
        return os.open(name, _OPEN, dir_fd=parent)

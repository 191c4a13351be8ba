"""Which boot of this machine we are in: what differs from one to the next, in containers too."""

from __future__ import annotations

import ctypes
import hashlib
import os
from typing import Final

from agentd.processes import ContainmentError, stat_of


def boot_identity(boot_id_file: str | None = None) -> str:
    """A short text that differs from boot to boot, also for containers: the kernel's boot id (or what `boot_id_file`
    holds), our pid namespace, when its first process began, and when its root directory was born."""
    first = stat_of(1)
    parts = [
        _read_text(boot_id_file or "/proc/sys/kernel/random/boot_id"),
        _link("/proc/self/ns/pid"),
        str(first.starttime) if first is not None else "",
        _birth("/"),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _read_text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError as error:
        raise ContainmentError(f"Could not read the boot id from {path}: {error.strerror}.") from error


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""  # no such namespace on this kernel: the rest has to tell


class _Statx(ctypes.Structure):
    _fields_ = [
        ("mask", ctypes.c_uint32),
        ("skipped", ctypes.c_uint8 * 76),
        ("birth_s", ctypes.c_int64),
        ("birth_ns", ctypes.c_uint32),
        ("rest", ctypes.c_uint8 * 164),
    ]


_STATX_BTIME: Final = 0x800
_AT_FDCWD: Final = -100


def _birth(path: str) -> str:
    """When a file was born, or empty where system or file system do not tell."""
    statx = getattr(ctypes.CDLL(None, use_errno=True), "statx", None)
    found = _Statx()
    if statx is None or statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_BTIME, ctypes.byref(found)) != 0:
        return ""
    return f"{found.birth_s}.{found.birth_ns:09}" if found.mask & _STATX_BTIME else ""

"""What a job's user left in the agent's own IPC namespace and public directories: nothing, where jobs have their own.

Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from typing import Final

from agentd.beneath import shown

PUBLIC: Final = ("/dev/shm", "/dev/mqueue", "/tmp", "/var/tmp")
_REMOVE: Final = 0
_libc: Final = ctypes.CDLL(None, use_errno=True)
_KINDS: Final[dict[str, tuple[str, str, Callable[[int], int]]]] = {
    "shm": ("shmid", "shared memory", lambda number: int(_libc.shmctl(number, _REMOVE, None))),
    "sem": ("semid", "semaphores", lambda number: int(_libc.semctl(number, 0, _REMOVE))),
    "msg": ("msqid", "message queue", lambda number: int(_libc.msgctl(number, _REMOVE, None))),
}


def remove_ipc(uid: int) -> list[str]:
    """Remove all of System V's that this user made or has; what would not go, in sentences."""
    return [
        f"System V {shown_kind} {number} of user {uid} could not be removed."
        for kind, (_, shown_kind, remove) in _KINDS.items()
        for number in _of(kind, uid)
        if remove(number) != 0
    ]


def _of(kind: str, uid: int) -> Iterator[int]:
    with contextlib.suppress(FileNotFoundError), open(f"/proc/sysvipc/{kind}", encoding="ascii") as file:
        names = file.readline().split()
        for line in file:
            row = dict(zip(names, line.split(), strict=False))
            if str(uid) in (row["uid"], row["cuid"]):
                yield int(row[_KINDS[kind][0]])


def public_files(uid: int, places: tuple[str, ...] = PUBLIC) -> list[str]:
    """What this user has directly in the directories where everybody may have files, in sentences."""
    found = []
    for place in places:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(place) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if entry.stat(follow_symlinks=False).st_uid == uid:
                        found.append(f"{place}/{shown(entry.name)} is of user {uid}.")
    return found

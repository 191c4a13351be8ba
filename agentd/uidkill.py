"""Ends everything that runs as a job's user, by a process of that user: the kernel then finds what nothing else does.

`kill(-1)` reaches, at one moment, every process that its sender may signal. So the sender must be nobody but the job's
user, and nothing of the job may end the sender first. Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import Final

from agentd.processes import KILL_PATIENCE_S, ContainmentError, now_s, of_uid
from agentd.uids import MAX_UID, Range

LEAST_UID: Final = 1000
"""Users below are the system's, whatever a configuration says."""
_SETTLE_S: Final = 0.5
"""For what was killed to be dead, before it is killed once more."""
_ANSWER_S: Final = 10.0


# Whom a signal reaches is decided by our effective user, together with the real one; who may signal us, by our real and
# our saved one. With user 0 in no place the kernel takes all capabilities away; that is looked at before anything dies.
_PROGRAM: Final = """
import os, sys
uid, killer = map(int, sys.argv[1:])
os.setgroups([])
os.setresgid(killer, killer, killer)
os.setresuid(killer, uid, killer)
with open("/proc/self/status", "rb") as file:
    fields = dict(line.split(b":", 1) for line in file if b":" in line)
powers = {int(fields[name], 16) for name in (b"CapPrm", b"CapEff", b"CapAmb")}
if os.getresuid() != (killer, uid, killer) or 0 in (uid, killer) or powers != {0}:
    sys.exit("the kernel left rights to a process that had given them up")
try:
    os.kill(-1, 9)
except ProcessLookupError:
    pass  # nobody else is here at all
os.write(1, b"killed")
"""
_one_at_a_time: Final = threading.Lock()  # they are all of one user, so each would kill the others


def killer_of(users: Range) -> int:
    """The user of the range that is never a job's: whose process it is that kills a job's. The job can't touch it."""
    return users.last


def kill_uid(uid: int, users: Range, patience_s: float = KILL_PATIENCE_S) -> int:
    """Kill every process of a job's user until there is none; the number that would not die. Raises ContainmentError
    when that can't be done, or if this is no user of a job."""
    _guard(uid, users)
    deadline = now_s() + patience_s
    while True:
        with _one_at_a_time:
            killed = _kill_all(uid, killer_of(users))
        settled = min(deadline, now_s() + _SETTLE_S)
        while (left := of_uid(uid)) and now_s() < settled:
            time.sleep(0.001)
        if killed and not left:
            return 0
        if now_s() >= deadline:
            return max(1, len(left))


def _guard(uid: int, users: Range) -> None:
    reserved = users.first > LEAST_UID and users.last <= MAX_UID
    if not reserved or uid not in users or uid == killer_of(users) or uid in os.getresuid():
        raise ContainmentError(f"User {uid} is not killed: it is no job's.")
    if os.geteuid() != 0:
        raise ContainmentError(f"User {uid} can't be killed: the agent is not root.")


def _kill_all(uid: int, killer: int) -> bool:
    """Whether the kernel was asked to kill them all; not when ours was ended first, by another agent's, which is of
    the same user, or as a stray below us."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _PROGRAM, str(uid), str(killer)],
            stdin=subprocess.DEVNULL, capture_output=True, env={}, cwd="/",
            start_new_session=True, timeout=_ANSWER_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False
    except OSError as error:
        raise ContainmentError(f"Could not kill what runs as user {uid}: {error.strerror}.") from error
    words = done.stderr.decode("utf-8", "replace").strip().splitlines()
    if words:
        raise ContainmentError(f"Could not kill what runs as user {uid}: {words[-1]}.")
    return done.stdout == b"killed"

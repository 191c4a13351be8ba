"""Runs what `on_end` names: as the user that the configuration says, in an environment built from nothing, for so long,
with the end of its output kept.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import Final

import trio

from coordinator.events import EndCall, EndCallOver
from coordinator.on_end import MAX_OUTPUT

GRACE_S: Final = 5.0
"""From SIGTERM to SIGKILL, when its time is over."""
_LAUNCHER: Final = """
import ctypes, os, signal, sys, warnings
parent, user = int(sys.argv[1]), [int(part) for part in sys.argv[2].split(",") if part]
if user:
    os.setgroups(user[2:])
    os.setgid(user[1])
    os.setuid(user[0])
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
if os.getppid() != parent:
    sys.exit(1)
try:
    os.execvpe(sys.argv[3], sys.argv[3:], os.environ)
except OSError as error:
    sys.exit(f"{sys.argv[3]}: {error.strerror}")
"""
"""Becomes the user, dies with the coordinator, and gets no right that the user does not have."""


@dataclass(frozen=True, slots=True)
class Caller:
    """As whom, and how long. Without `user`: as ourselves."""

    timeout_s: float = 60.0
    user: tuple[int, ...] | None = None
    """uid, gid and further groups."""

    async def run(self, call: EndCall) -> EndCallOver:
        """Run it to its end. Whatever it does, it and its process group are gone then."""
        try:
            process = self._started(call)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            return EndCallOver(call.job, None, None, f"it could not be started: {error}", b"")
        tail = bytearray()
        reason = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_read, process, tail)
                with trio.move_on_after(self.timeout_s) as limit:
                    await _ended(process)
                if limit.cancelled_caught:
                    reason = f"it took longer than {self.timeout_s:g} s"
                    _signal(process, signal.SIGTERM)
                    with trio.move_on_after(GRACE_S):
                        await _ended(process)
                nursery.cancel_scope.cancel()
        finally:
            _signal(process, signal.SIGKILL)
            status = process.wait()
            if process.stdout is not None:
                process.stdout.close()
        if status < 0:
            return EndCallOver(call.job, None, -status, reason, bytes(tail))
        return EndCallOver(call.job, status if reason is None else None, None, reason, bytes(tail))

    def _started(self, call: EndCall) -> subprocess.Popen[bytes]:
        user = "" if self.user is None else ",".join(str(number) for number in self.user)
        words = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), user, *call.argv]
        return subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/", bufsize=0,
            env=call.environment, start_new_session=True, umask=0o077,
        )  # fmt: skip


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """To its group, which is its own: it leads a session."""
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return  # nobody is left in it, or somebody who became another user


async def _ended(process: subprocess.Popen[bytes]) -> None:
    handle = os.pidfd_open(process.pid)
    try:
        await trio.lowlevel.wait_readable(handle)
    finally:
        os.close(handle)


async def _read(process: subprocess.Popen[bytes], tail: bytearray) -> None:
    """Keep the end of what it writes, however much that is."""
    assert process.stdout is not None, "it was opened as a pipe"
    fd = process.stdout.fileno()
    while True:
        await trio.lowlevel.wait_readable(fd)
        content = os.read(fd, 65_536)
        if not content:
            return
        tail += content
        del tail[:-MAX_OUTPUT]

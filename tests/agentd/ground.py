"""What tests of a node's files share: an unprivileged somebody, a mount namespace, an empty trash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

NOW = 1_700_000_000.0
SOMEBODY = 4242


def empty(node, steps=10_000):
    while node.empty_trash(steps):
        pass


def as_somebody(action, before=lambda place: None):
    """Do it as an unprivileged user, where rights count; in a child if we are root. `before` is done as we are."""
    place = Path(tempfile.mkdtemp())
    try:
        before(place)
        if os.geteuid() != 0:
            action(place)
            return
        os.chown(place, SOMEBODY, SOMEBODY)
        child = os.fork()
        if child == 0:
            os.setgroups([])
            os.setresgid(SOMEBODY, SOMEBODY, SOMEBODY)
            os.setresuid(SOMEBODY, SOMEBODY, SOMEBODY)
            try:
                action(place)
            except BaseException as error:
                os.write(2, repr(error).encode())
                os._exit(1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        subprocess.run(["chmod", "-R", "u+rwx", str(place)], check=True)
        shutil.rmtree(place)


def can_mount():
    return os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


def in_mount_namespace(script, *arguments):
    command = ["unshare", "--mount", "--", sys.executable, "-c", script, *arguments]
    subprocess.run(command, check=True, cwd=Path(__file__).parent.parent.parent)

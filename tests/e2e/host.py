"""Process 1 of a host of its own: a name, a file system whose changes are its own, and a reaper of orphans.

    unshare --net --mount --uts --pid --fork --kill-child python host.py NAME HOSTS LAYER PORTED_DIRECTORY...

It says `up` when all is mounted, and ends at the end of its stdin: then everything on the host is killed.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import zlib
from pathlib import Path

OWN = ("/etc", "/var", "/opt", "/home", "/srv", "/root", "/run")
"""What a host may change without another one seeing it."""
FIRST = 1_879_048_192
"""As in agentd.uids, which this program can't import: it runs before anything is set up."""


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def give_other_users(name: str) -> None:
    """Hosts share a kernel and its numbers of users: here jobs get others than the machine's own agents give."""
    place = Path("/var/lib/poolkeeper-uids")
    place.mkdir(mode=0o700, exist_ok=True)
    for path in place.iterdir():
        path.unlink()
    leases = place / "leases.json"
    leases.write_text(json.dumps({"next": FIRST + 30_000 + 5_000 * (zlib.crc32(name.encode()) % 7), "leases": []}))
    leases.chmod(0o600)


def main() -> None:
    name, hosts, layer = sys.argv[1:4]
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    socket.sethostname(name)
    mount("-t", "proc", "proc", "/proc")
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", layer)
    for number, place in enumerate(OWN):
        upper, work = f"{layer}/upper{number}", f"{layer}/work{number}"
        os.mkdir(upper)
        os.mkdir(work)
        os.chmod(upper, os.stat(place).st_mode & 0o7777)
        mount("-t", "overlay", "-o", f"lowerdir={place},upperdir={upper},workdir={work}", "overlay", place)
    give_other_users(name)
    Path("/etc/hostname").write_text(f"{name}\n")
    Path("/etc/hosts").write_text(f"127.0.0.1 localhost\n{hosts}")
    print("up", flush=True)
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready = select.select([0, wake], [], [])[0]
        if 0 in ready and not os.read(0, 64):
            return
        if wake in ready:
            os.read(wake, 4096)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            continue


if __name__ == "__main__":
    main()

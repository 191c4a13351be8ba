"""Process 1 of a host of its own: a name, a file system whose changes are its own, and a reaper of orphans.

    unshare --net --mount --uts --pid --fork --kill-child python host.py NAME HOSTS LAYER PORTED_DIRECTORY...

It says `up` when all is mounted, and ends at the end of its stdin: then everything on the host is killed.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

OWN = ("/etc", "/var", "/opt", "/home", "/srv", "/root", "/run")
"""What a host may change without another one seeing it."""


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


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

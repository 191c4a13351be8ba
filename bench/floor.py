"""The spawn floor: one process that starts `/bin/true` in a loop and does per task what a node must do at the least.

Per task: a fresh directory, two files for the output in it, a new session, an environment of thirty variables, the exit
status and the resource usage. Nothing is decided, sent or made durable. Standard library only, run as `python -I -S`;
two of these at once are the floor of two slots. It says `ready`, waits for a line, and prints the seconds it took.
"""

from __future__ import annotations

import os
import sys
import time

PROGRAM = "/bin/true"


def run(directory: str, count: int) -> float:
    """Seconds for `count` tasks, one after another, each in its own directory below `directory`."""
    environment = {f"BATCH_VARIABLE_{n:02}": f"value-{n}" for n in range(28)} | {
        "PATH": "/usr/bin:/bin",
        "HOME": directory,
    }
    devnull = os.open("/dev/null", os.O_RDONLY)
    begin = time.perf_counter()
    for n in range(count):
        task = f"{directory}/task-{n}"
        os.mkdir(task, 0o750)
        out = os.open(f"{task}/stdout.txt", os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o640)
        err = os.open(f"{task}/stderr.txt", os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o640)
        pid = os.posix_spawn(
            PROGRAM,
            [PROGRAM],
            environment,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, devnull, 0),
                (os.POSIX_SPAWN_DUP2, out, 1),
                (os.POSIX_SPAWN_DUP2, err, 2),
            ],
            setsid=True,
        )
        os.close(out)
        os.close(err)
        _, status, _usage = os.wait4(pid, 0)
        if status != 0:
            raise SystemExit(f"error: {PROGRAM} ended with status {status}")
    return time.perf_counter() - begin


if __name__ == "__main__":
    where, how_many = sys.argv[1], int(sys.argv[2])
    print("ready", flush=True)
    sys.stdin.readline()
    print(run(where, how_many), flush=True)

"""Process 1 of a pid namespace of its own: runs one scenario, reaps whatever is orphaned, says what is left.

    unshare --pid --fork --mount-proc --kill-child python fence.py DIRECTORY SCENARIO

What a hostile task kills or leaves stays in here; a fork bomb stops at the limit set on the way in. The answer is a
line of JSON on stdout.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

DIRECTORY = Path(sys.argv[1])
BOUND_S = 45.0
COORDINATOR = [sys.executable, "-m", "coordinator.cli"]
RELEASED = DIRECTORY / "released"
REACHED = DIRECTORY / "reached"

JOB = """
pool p {{ slots = 2 }}
job j {{
  pool = p
  task t {{
    script = '''
      echo $$ > {reached}
      {deed}
      sleep 1000
    '''
  }}
  release {{ script = 'echo released >> {released}' }}
}}
"""


def write_job(deed: str) -> str:
    """The file with a task that does `deed` and then stays."""
    path = DIRECTORY / "job.batch"
    path.write_text(JOB.format(deed=deed, reached=REACHED, released=RELEASED))
    return str(path)


def others() -> list[tuple[int, str]]:
    """Every process in here but this one, with its command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if state != "Z":
                found.append((int(entry.name), words))
    return found


def reap() -> None:
    """Collect every dead child, adopted ones included."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


def until(holds: Callable[[], object], bound_s: float = BOUND_S) -> float:
    """Reap and look until it holds; the seconds it took. Process 1 has no other way to wait for strangers."""
    began = time.monotonic()
    while not holds():
        reap()
        if time.monotonic() - began > bound_s:
            return -1.0
        signal.sigtimedwait({signal.SIGCHLD}, 0.05)
    return time.monotonic() - began


def run(path: str) -> int:
    """Start `coordinator run` and leave it to itself; its pid."""
    with (DIRECTORY / "run.log").open("ab") as log:
        return os.posix_spawn(
            sys.executable,
            [*COORDINATOR, "run", path],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, log.fileno(), 1), (os.POSIX_SPAWN_DUP2, log.fileno(), 2)],
        )


def daemons(word: str) -> list[int]:
    """Processes whose command line holds this word."""
    return [pid for pid, words in others() if word in words]


def kill(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def after_a_kill(targets: Callable[[int], list[int]]) -> dict[str, Any]:
    """Kill parts of a running `run`; whoever is left must release and go."""
    pid = run(write_job("true"))
    reached = until(REACHED.exists)
    kill(targets(pid))
    empty = until(lambda: not others())
    return {"reached": reached, "empty": empty, "left": others(), "released": RELEASED.exists()}


def kill_coordinator() -> dict[str, Any]:
    """`run` starts its coordinator again and goes on, until it is interrupted."""
    pid = run(write_job("true"))
    reached = until(REACHED.exists)
    killed = coordinator_of_run()
    kill(killed)
    again = until(lambda: any(found not in killed for found in coordinator_of_run()))
    os.kill(pid, signal.SIGINT)
    empty = until(lambda: not others())
    return {"reached": reached, "again": again, "empty": empty, "left": others(), "released": RELEASED.exists()}


def coordinator_of_run() -> list[int]:
    return [pid for pid, words in others() if "coordinator" in words and " serve" in words]


def kill_all() -> dict[str, Any]:
    """A task kills everything it may: every daemon and `run` itself. The next `run` finishes what is left."""
    run(write_job("kill -9 -1"))
    reached = until(REACHED.exists)
    alone = until(lambda: len(others()) <= 2 and not daemons("coordinator"))
    quiet = DIRECTORY / "quiet.batch"
    quiet.write_text('pool q { }\njob quiet {\n pool = q\n task t { run = ["true"] }\n}\n')
    run(str(quiet))
    released = until(RELEASED.exists)
    empty = until(lambda: not others())
    return {"reached": reached, "alone": alone, "released": released >= 0, "empty": empty, "left": others()}


def stop_parent() -> dict[str, Any]:
    """A task stops the process that runs it. It is given up, and its job ends as any other."""
    pid = run(write_job("kill -STOP $PPID"))
    reached = until(REACHED.exists)
    first = REACHED.read_text()
    again = until(lambda: REACHED.read_text() not in ("", first))
    os.kill(pid, signal.SIGINT)
    empty = until(lambda: not others())
    return {"reached": reached, "again": again, "empty": empty, "left": others(), "released": RELEASED.exists()}


def fork_bomb() -> dict[str, Any]:
    """A task forks until nothing more can be forked; its timeout ends it all."""
    path = DIRECTORY / "job.batch"
    bomb = "bomb() { bomb | bomb & }; bomb; sleep 1000"
    path.write_text(
        f"pool p {{ }}\njob j {{\n pool = p\n task t {{\n timeout = 2s\n stop_grace = 1s\n script = '{bomb}'\n }}\n"
        f" release {{ script = 'echo released >> {RELEASED}' }}\n}}\n"
    )
    run(str(path))
    empty = until(lambda: RELEASED.exists() and not others())
    return {"reached": 0.0, "empty": empty, "left": others()[:10], "released": RELEASED.exists()}


SCENARIOS: dict[str, Callable[[], dict[str, Any]]] = {
    "run": lambda: after_a_kill(lambda pid: [pid]),
    "coordinator": kill_coordinator,
    "both": lambda: after_a_kill(lambda pid: [pid, *coordinator_of_run()]),
    "kill-all": kill_all,
    "stop-parent": stop_parent,
    "fork-bomb": fork_bomb,
}


def main() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
    answer = SCENARIOS[sys.argv[2]]()
    log = DIRECTORY / "run.log"
    answer["log"] = log.read_text(errors="replace")[-3000:] if log.exists() else ""
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

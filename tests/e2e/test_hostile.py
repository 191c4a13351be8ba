"""Whatever is killed, and whatever a task does to its keepers: within a bound no process is left, and no debt.

Each scenario runs in a pid namespace of its own with a limit on processes, so that nothing here can reach the machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FENCE = Path(__file__).with_name("fence.py")
PIDS = Path("/sys/fs/cgroup/pids")
MOST_PROCESSES = 200
BOUND_S = 45.0


def _can_fence() -> bool:
    words = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "true"]
    with contextlib.suppress(OSError):
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
    return False


pytestmark = pytest.mark.skipif(not _can_fence(), reason="needs root (or a pid namespace) to fence hostile processes")


@pytest.fixture
def limit(tmp_path: Path) -> Iterator[Path | None]:
    """A cgroup that holds the scenario to so many processes, where the kernel offers one."""
    if not os.access(PIDS, os.W_OK):
        yield None
        return
    group = PIDS / f"poolkeeper-test-{os.getpid()}"
    group.mkdir()
    (group / "pids.max").write_text(str(MOST_PROCESSES))
    yield group
    group.rmdir()


def fenced(directory: Path, scenario: str, limit: Path | None) -> dict[str, Any]:
    """What the scenario answered."""
    inside = [sys.executable, str(FENCE), str(directory), scenario]
    enter = ["sh", "-c", f'echo 0 > {limit}/cgroup.procs; exec "$@"', "sh"] if limit is not None else []
    done = subprocess.run(
        [*enter, "unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *inside],
        capture_output=True, text=True, timeout=240, check=False,
        env={
            "PATH": os.environ["PATH"], "HOME": str(directory), "XDG_STATE_HOME": str(directory / "xdg"),
            "TMPDIR": str(directory), "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["run", "coordinator", "both", "kill-all", "stop-parent"])
def test_nothing_is_left_and_nothing_is_owed_after(scenario: str, tmp_path: Path, limit: Path | None) -> None:
    answer = fenced(tmp_path, scenario, limit)
    assert answer["reached"] >= 0, answer
    assert answer["released"], answer
    assert answer["left"] == [], answer
    assert 0 <= answer["empty"] <= BOUND_S, answer
    assert "Traceback" not in answer["log"]


@pytest.mark.slow
def test_a_fork_bomb_ends_with_its_task(tmp_path: Path, limit: Path | None) -> None:
    if limit is None:
        pytest.skip("needs a pids limit: without one a fork bomb would fill the machine")
    answer = fenced(tmp_path, "fork-bomb", limit)
    assert answer["released"], answer
    assert answer["left"] == [], answer
    assert "Traceback" not in answer["log"]

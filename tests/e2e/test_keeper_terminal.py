"""A keeper that runs a shell on a pseudo-terminal, in the directory that a command left."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.keeper_play import PATIENCE_S, USER, Agent
from tests.e2e.test_keeper_process import FENCES


@pytest.fixture(params=["same", "job"])
def agent(tmp_path: Path, request: Any) -> Any:
    if request.param == "job" and not FENCES:
        pytest.skip("users of jobs and their namespaces need root, and a Python outside of its home")
    made = Agent(tmp_path, user=USER if request.param == "job" else None)
    yield made
    made.close()


@pytest.fixture
def terminal(agent: Agent) -> Any:
    """Our end of a pseudo-terminal, and the name of the other, which is the job's."""
    ours, theirs = os.openpty()
    if agent.user is not None:
        os.fchown(theirs, agent.user, -1)
    yield ours, os.ttyname(theirs)
    os.close(theirs)
    os.close(ours)


def read_until(fd: int, text: bytes) -> bytes:
    said = b""
    deadline = time.monotonic() + PATIENCE_S
    while text not in said:
        assert select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0], said
        said += os.read(fd, 4096)
    return said


def test_a_shell_has_the_terminal_as_its_own_in_the_directory_that_a_command_left(agent: Agent, terminal: Any) -> None:
    ours, name = terminal
    talk = agent.start()
    assert agent.ended(talk, ["sh", "-c", "echo found > it; exit 3"])["exit_code"] == 3
    before = (agent.root / "workitems/j-1/a").stat().st_mtime_ns
    shell = agent.template(["sh", "-i"], id="s", terminal=name)
    talk.say(shell, {"op": "run", "items": [["shell.1", "s", [], "j-1/a"]]})
    os.write(ours, b"cat it; pwd; id -u; tty; ps -o tpgid= -p $$ >/dev/null && echo owned; exit 5\n")
    said = read_until(ours, b"owned\r\n").replace(b"\r\n", b"\n").decode()
    assert f"found\n{agent.root}/workitems/j-1/a/wd\n{agent.user or os.getuid()}\n{name}\n" in said
    end = talk.hear("ended")
    assert (end["key"], end["outcome"], end["exit_code"]) == ("shell.1", "exited", 5)
    assert (agent.root / "workitems/j-1/a").stat().st_mtime_ns == before, "its keep goes on from the command's end"


def test_ctrl_c_reaches_what_runs_in_the_foreground_and_not_the_shell(agent: Agent, terminal: Any) -> None:
    ours, name = terminal
    talk = agent.start()
    agent.ended(talk, ["true"])
    shell = agent.template(["sh", "-i"], id="s", terminal=name)
    shell["env"]["PS1"] = "@@ "
    talk.say(shell, {"op": "run", "items": [["shell.1", "s", [], "j-1/a"]]})
    # What is in the foreground says so itself: a shell that has forked and not begun the command yet may lose the key.
    os.write(ours, b"sh -c \"echo rea''dy; exec sleep 1000\"\n")
    read_until(ours, b"ready\r\n")
    os.write(ours, b"\x03")
    read_until(ours, b"@@ ")  # what is typed before that goes with the interrupted
    os.write(ours, b"echo still $((40 + 2)); exit\n")
    read_until(ours, b"still 42")
    assert talk.hear("ended")["outcome"] == "exited"


def test_a_directory_that_is_gone_is_a_sentence(agent: Agent, terminal: Any) -> None:
    _, name = terminal
    talk = agent.start()
    talk.say(agent.template(["sh"], id="s", terminal=name), {"op": "run", "items": [["shell.1", "s", [], "j-1/never"]]})
    end = talk.hear("ended")
    assert end["outcome"] == "start_failed"
    assert "go back to the work directory of j-1/never" in end["reason"]
    assert not (agent.root / "workitems/j-1/never").exists()


def test_a_shell_is_killed_with_all_that_it_started(agent: Agent, terminal: Any) -> None:
    ours, name = terminal
    talk = agent.start()
    agent.ended(talk, ["true"])
    talk.say(
        agent.template(["sh", "-i"], id="s", terminal=name), {"op": "run", "items": [["shell.1", "s", [], "j-1/a"]]}
    )
    os.write(ours, b"setsid sleep 1000 & echo rea''dy\n")
    read_until(ours, b"ready\r\n")
    talk.say({"op": "stop", "key": "shell.1", "reason": "Its job ended."})
    assert talk.hear("ended")["outcome"] == "killed"

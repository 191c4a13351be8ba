"""`coordinator top` in a terminal of its own, as somebody sees it who came over ssh."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import COORDINATOR, PATIENCE_S, Cluster

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


class Terminal:
    """A window of tmux, 80 by 24, on a server of its own."""

    def __init__(self, cluster: Cluster, command: str) -> None:
        self.socket = str(cluster.directory / "tmux.sock")
        self.environment = {**cluster.environment, "BATCH_COORDINATOR": str(cluster.socket), "LANG": "C.UTF-8"}
        self.tmux("-f", os.devnull, "new-session", "-d", "-x", "80", "-y", "24", command)

    def tmux(self, *words: str) -> str:
        done = subprocess.run(
            ["tmux", "-u", "-S", self.socket, *words], capture_output=True, text=True, env=self.environment, check=True
        )
        return done.stdout

    def shows(self, what: Callable[[str], bool]) -> str:
        """The screen, once it is so."""
        deadline = time.monotonic() + PATIENCE_S
        while not what(screen := self.tmux("capture-pane", "-p")):
            assert time.monotonic() < deadline, screen
        return screen

    def close(self) -> None:
        subprocess.run(["tmux", "-S", self.socket, "kill-server"], capture_output=True, check=False)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    made.serve()
    yield made
    made.close()


@pytest.fixture
def terminal(cluster: Cluster) -> Iterator[Terminal]:
    command = shlex.join([*COORDINATOR, "top", "--every", "0.2"])
    made = Terminal(cluster, f"{command}; echo it left with $?; exec cat")
    yield made
    made.close()


def test_top_shows_jobs_and_nodes_live_fits_any_window_and_gives_the_terminal_back(
    cluster: Cluster, terminal: Terminal
) -> None:
    terminal.shows(lambda text: "0 nodes" in text)
    cluster.agent("n", slots=2)
    go = cluster.pipe("go")
    job = cluster.submit(f"""
        job daily {{
          pool = p
          task t for i in 1..3 {{ script = 'read line < {go.path}' }}
        }}
    """)
    screen = terminal.shows(lambda text: "daily-1" in text and "2/2" in text and "0/3" in text)
    assert max(len(line) for line in screen.splitlines()) <= 80
    terminal.tmux("resize-window", "-x", "60", "-y", "12")
    screen = terminal.shows(lambda text: "daily-1" in text and len(text.splitlines()) <= 12)
    for _ in range(3):
        with go.path.open("w") as writer:
            writer.write("on\n")
    assert cluster.wait(job)["result"] == "success"
    terminal.shows(lambda text: "success" in text and "3/3" in text)
    terminal.tmux("send-keys", "j", "k", "q")
    left = terminal.shows(lambda text: "it left with 0" in text)
    assert "daily-1" not in left, "what was drawn is taken back"


def test_top_without_a_terminal_tells_once(cluster: Cluster) -> None:
    cluster.agent("n", slots=2)
    assert "1 node (1 idle)" in cluster.command("top").stdout
    assert cluster.ask("top")["nodes"] == {"idle": 1}

"""`docs/cluster.md`, followed word by word: its commands are typed on hosts of their own, their output is compared."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.typed import BLOCK, PATIENCE_S, Step, Terminal, steps_of
from tests.e2e.hosts import Hosts, why_not

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "cluster.md"
REASON = why_not()
PROMPT = re.compile(r"(head|node1|node2|desk)[#$] (.*)")
ASKING = re.compile(r"(coordinator (node|task|job) (list|nodes|show)|grep|tail|pgrep)\b")
"""Commands that change nothing: they are repeated until they print what the document says."""


def steps() -> list[Step]:
    """All of the document, in order."""
    blocks = BLOCK.findall(DOCUMENT.read_text(encoding="utf-8"))
    return [step for block in blocks for step in steps_of(block, PROMPT)]


def shape(line: str) -> re.Pattern[str]:
    """A line of the document as a pattern: `…` is anything, and columns are as wide as they have to be."""
    if line.startswith("bj1."):
        return re.compile(r"bj1\.[0-9a-f]{64}\.[\w-]{43}", re.ASCII)  # the document shortens it
    pieces = [re.sub(r"(\\ )+", r"\\s+", re.escape(piece)) for piece in line.strip().split("…")]
    return re.compile(r"\s*" + ".*".join(pieces) + r"\s*")


def fits(printed: list[str], said: list[str]) -> bool:
    lines = [line for line in printed if line.strip()]
    return len(lines) == len(said) and all(shape(s).fullmatch(line) for s, line in zip(said, lines, strict=True))


class Reader:
    """Follows the document; a join string that it abbreviates is the one that was printed in its place."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self._terminals: dict[str, Terminal] = {}
        self._tokens: dict[str, str] = {}

    def follow(self, step: Step) -> None:
        if step.host not in self._terminals:
            self._terminals[step.host] = Terminal(self._hosts[step.host].start)
        command = step.command
        for short, whole in self._tokens.items():
            command = command.replace(short, whole)
        printed = self._terminals[step.host].type(command)
        deadline = time.monotonic() + PATIENCE_S
        while not fits(printed, step.prints):
            told = f"{step.host}: {command}\n" + "\n".join(printed) + "\n--- and not\n" + "\n".join(step.prints)
            assert ASKING.match(command), told
            assert time.monotonic() < deadline, told
            printed = self._terminals[step.host].type(command)
        for line, said in zip([line for line in printed if line.strip()], step.prints, strict=True):
            if said.startswith("bj1."):
                self._tokens[said] = line

    def close(self) -> None:
        for terminal in self._terminals.values():
            terminal.close()


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, module in (("coordinator", "coordinator.cli"), ("agentd", "agentd")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        (programs / name).chmod(0o755)
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}:/usr/sbin:/sbin",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    hosts = Hosts(tmp_path, ["head", "node1", "node2", "desk"], environment)
    made = Reader(hosts)
    yield made
    hosts.close()
    made.close()


@pytest.mark.slow
@pytest.mark.skipif(REASON is not None, reason=str(REASON))
def test_the_set_up_of_several_hosts_goes_as_it_is_written(reader: Reader) -> None:
    followed = steps()
    assert len(followed) > 25
    for step in followed:
        reader.follow(step)


def test_every_command_of_the_document_stands_behind_a_prompt() -> None:
    """What is in a console block is run; so nothing may look like a command and be none."""
    text = DOCUMENT.read_text(encoding="utf-8")
    for step in steps():
        assert not any(re.match(r"\S+[#$] ", line) for line in step.prints), step
    assert "$ coordinator" in text

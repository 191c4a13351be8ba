"""`docs/cluster.md`, followed word by word: its commands are typed on hosts of their own, their output is compared."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.cluster import PATIENCE_S
from tests.e2e.hosts import Host, Hosts, why_not

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "cluster.md"
REASON = why_not()
PROMPT = re.compile(r"(head|node1|node2|desk)[#$] (.*)")
ASKING = re.compile(r"(coordinator (node|task|job) (list|nodes|show)|grep|tail|pgrep)\b")
"""Commands that change nothing: they are repeated until they print what the document says."""
DONE = "--- that was it:"


@dataclass
class Step:
    """One command with what it prints, as the document has it."""

    host: str
    command: str
    prints: list[str] = field(default_factory=list)


def steps_of(text: str) -> list[Step]:
    """The commands of every console block, in order. A here-document belongs to its command."""
    steps: list[Step] = []
    for block in re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        until: str | None = None
        for line in block.splitlines():
            if until is not None:
                steps[-1].command += "\n" + line
                until = None if line == until else until
                continue
            if typed := PROMPT.fullmatch(line):
                steps.append(Step(typed[1], typed[2]))
                here = re.search(r"<<'(\w+)'", typed[2])
                until = here[1] if here else None
            else:
                steps[-1].prints.append(line)
        assert until is None, f"a here-document without its end: {steps[-1].command}"
    return steps


class Terminal:
    """A shell on a host, as a person has it: what is set in it stays."""

    def __init__(self, host: Host) -> None:
        self._shell = host.start(
            "bash", "--noprofile", "--norc", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._held = b""

    def type(self, command: str) -> list[str]:
        """The lines that it prints."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{command}\nprintf '%s\\n' '{DONE}'\n")
        self._shell.stdin.flush()
        deadline = time.monotonic() + PATIENCE_S
        end = f"{DONE}\n".encode()
        while end not in self._held:
            ready = select.select([self._shell.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]
            assert ready, f"{command} does not come back: {self._held.decode()}"
            piece = os.read(self._shell.stdout.fileno(), 65536)
            assert piece, f"the shell ended: {self._held.decode()}"
            self._held += piece
        printed, _, self._held = self._held.partition(end)
        return printed.decode().splitlines()

    def close(self) -> None:
        for pipe in (self._shell.stdin, self._shell.stdout):
            assert pipe is not None
            pipe.close()
        self._shell.wait(PATIENCE_S)


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
            self._terminals[step.host] = Terminal(self._hosts[step.host])
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
    steps = steps_of(DOCUMENT.read_text(encoding="utf-8"))
    assert len(steps) > 25
    for step in steps:
        reader.follow(step)


def test_every_command_of_the_document_stands_behind_a_prompt() -> None:
    """What is in a console block is run; so nothing may look like a command and be none."""
    text = DOCUMENT.read_text(encoding="utf-8")
    for step in steps_of(text):
        assert not any(re.match(r"\S+[#$] ", line) for line in step.prints), step
    assert "$ coordinator" in text

"""Commands that stand in a document as they are typed: out of its console blocks, into shells."""

from __future__ import annotations

import os
import re
import select
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

PATIENCE_S: Final = 60.0
BLOCK: Final = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_DONE: Final = "--- that was it:"


@dataclass
class Step:
    """One command with what it prints, as the document has it."""

    host: str
    command: str
    prints: list[str] = field(default_factory=list)


def steps_of(block: str, prompt: re.Pattern[str]) -> list[Step]:
    """The commands of one console block, in order. `prompt` has two groups, the host and what is typed there; a
    here-document belongs to its command."""
    steps: list[Step] = []
    until: str | None = None
    for line in block.splitlines():
        if until is not None:
            steps[-1].command += "\n" + line
            until = None if line == until else until
        elif typed := prompt.fullmatch(line):
            steps.append(Step(typed[1], typed[2]))
            here = re.search(r"<<'?(\w+)'?$", typed[2])
            until = here[1] if here else None
        else:
            steps[-1].prints.append(line)
    assert until is None, f"a here-document without its end: {steps[-1].command}"
    return steps


class Terminal:
    """A shell, as a person has it: what is set in it stays. `start` starts its process with the given pipes."""

    def __init__(self, start: Callable[..., subprocess.Popen[str]]) -> None:
        self._shell = start(
            "bash", "--noprofile", "--norc", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._held = b""

    def type(self, command: str) -> list[str]:
        """The lines that it prints. Fails when the shell does not come back in time."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{command}\nprintf '%s\\n' '{_DONE}'\n")
        self._shell.stdin.flush()
        deadline = time.monotonic() + PATIENCE_S
        end = f"{_DONE}\n".encode()
        while end not in self._held:
            ready = select.select([self._shell.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]
            assert ready, f"{command} does not come back: {self._held.decode()}"
            piece = os.read(self._shell.stdout.fileno(), 65536)
            assert piece, f"the shell ended: {self._held.decode()}"
            self._held += piece
        printed, _, self._held = self._held.partition(end)
        return printed.decode().splitlines()

    def close(self) -> None:
        """After the shell was ended, or to end it."""
        for pipe in (self._shell.stdin, self._shell.stdout):
            assert pipe is not None
            pipe.close()
        self._shell.wait(PATIENCE_S)

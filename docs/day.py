"""Lives the day of `docs/operations.md` through, with real processes, and writes what its commands print between them.

The program that the day's tasks run waits until it is told what to do. In the document
`<!-- stage: ARGUMENTS, …: WORDS -->` tells those that were started with these arguments (preparations and releases:
`NODE ARGUMENTS`), in shell; `<!-- until: COMMAND: PATTERN -->` waits for what a command prints; `<!-- off: NODE -->` is
a power failure.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from docs.typed import BLOCK, PATIENCE_S, Step, Terminal, steps_of
from tests.e2e.cluster import AGENTD, COORDINATOR, Cluster
from wire import thin

DOCUMENT: Final = Path(__file__).with_name("operations.md")
CHAPTER: Final = re.compile(r"^## A day\n.*?(?=^## )", re.MULTILINE | re.DOTALL)
PROGRAM: Final = "risk-engine"
USER: Final = "ann"
"""What whoever lives the day is called in the document."""
_PROMPT: Final = re.compile(r"()\$ (.*)")
_DIRECTION: Final = re.compile(r"<!-- (stage|until|off): (.*?) -->\n")
_PIECE: Final = re.compile(f"{BLOCK.pattern}|{_DIRECTION.pattern}", re.MULTILINE | re.DOTALL)
_CHANGES: Final = re.compile(
    r"(cat >|sed |agentd )|submit|job (disable|enable|set|retry|terminate|delete|wait)|task cancel"
    r"|node (drain|enable|forget)|pool apply|serve"
)
"""What is typed once; all other commands are typed until they print what the document says."""
_SETTLED_S: Final = 2.0
_DIFFERS: Final = [
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?"), "WHEN"),
    (re.compile(r"\b\d\d:\d\d:\d\d\b"), "WHEN"),
    (re.compile(r"\b\d{7,}\b"), "ID"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f-]{27}\b"), "ID"),
    (re.compile(r"\b(\d+(\.\d+)? ?(ms|s|min|m|h|d)\b ?)+"), "TIME "),
    (re.compile(r"\b\d+(\.\d+)? ?([KMGT]i)?B\b(?! of)"), "SIZE"),
    (re.compile(r"\b(process|pid) \d+"), "PROCESS"),
    (re.compile(r"\s+"), " "),
]
_SCRIPT: Final = """#!/bin/sh
[ -n "$BATCH_GROUP" ] || set -- "$BATCH_NODE_ID" "$@"
pipe="{stage}/$(printf %s "$*" | tr -c 'A-Za-z0-9' -)"
mkfifo "$pipe" 2>/dev/null
read -r line < "$pipe"
eval "$line"
"""


def same(line: str) -> str:
    """A text without what differs from day to day: times, durations, ids, sizes, and so the width of columns."""
    for pattern, word in _DIFFERS:
        line = pattern.sub(word, line)
    return line.strip()


def fits(printed: list[str], said: list[str]) -> bool:
    return same(" ".join(printed)) == same(" ".join(said))  # lines of sentences break where durations let them


class Day:
    """The machine on which the day is lived, with a terminal and what the day's programs do."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._cluster = Cluster(directory)
        self._stage = directory / "stage"
        self._state = directory / "state" / "poolkeeper"
        self._pipes: dict[str, int] = {}
        programs = directory / "bin"
        for made in (programs, self._stage):
            made.mkdir()
        words = {"coordinator": COORDINATOR, "agentd": AGENTD}
        texts = {name: f'#!/bin/sh\nexec {" ".join(command)} "$@"\n' for name, command in words.items()}
        for name, text in {**texts, PROGRAM: _SCRIPT.format(stage=self._stage)}.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(directory),
            "XDG_STATE_HOME": str(directory / "state"),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        self._terminal = Terminal(
            lambda *command, **pipes: subprocess.Popen(
                command, env=environment, cwd=directory, text=True, start_new_session=True, **pipes
            )
        )

    def close(self) -> None:
        self._cluster.close()
        self._terminal.close()
        for pipe in self._pipes.values():
            os.close(pipe)

    def type(self, command: str) -> list[str]:
        printed = "\n".join(self._terminal.type(f"{command}\ndisown -a")).replace(str(self._directory), "~")
        return re.sub(rf"\b{getpass.getuser()}\b", USER, printed).splitlines()

    def follow(self, step: Step, settle_s: float | None) -> list[str]:
        """What the command prints: what the document says if that comes in time, or after `settle_s` whatever it is."""
        once = _CHANGES.match(step.command.removeprefix("coordinator "))
        printed = self.type(step.command)
        if once or fits(printed, step.prints):
            return printed
        if settle_s is None:
            return self._until(step.command, lambda lines: fits(lines, step.prints))
        time.sleep(settle_s)
        return self.type(step.command)

    def direct(self, kind: str, words: str) -> None:
        """Carry out what stands in a comment of the document."""
        if kind == "stage":
            programs, _, does = words.partition(": ")
            for arguments in programs.split(", "):
                os.write(self._pipe(arguments), f"{does}\n".encode())
        elif kind == "off":
            agent = self._cluster.survivors(f"--name\0{words}\0--config")
            for pid in {*agent, *self._cluster.survivors(str(self._state / "nodes" / words))}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        else:
            command, _, pattern = words.rpartition(": ")
            printed = self._until(command, lambda lines: re.search(pattern, "\n".join(lines)) is not None)
            assert re.search(pattern, "\n".join(printed)), f"never came: {words}\n" + "\n".join(printed)

    def _pipe(self, arguments: str) -> int:
        """What tells a program that was or will be started with these arguments."""
        path = self._stage / re.sub(r"[^A-Za-z0-9]", "-", arguments)
        if arguments not in self._pipes:
            with contextlib.suppress(FileExistsError):
                os.mkfifo(path)
            self._pipes[arguments] = os.open(path, os.O_RDWR)
        return self._pipes[arguments]

    def _until(self, command: str, holds: Callable[[list[str]], bool]) -> list[str]:
        """Type it again whenever something has changed. Gives up after a while, with what is printed then."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            seen = self._change(-1)
            printed = self.type(command)
            if holds(printed) or time.monotonic() > deadline:
                return printed
            self._change(seen)

    def _change(self, seen: int) -> int:
        """Wait until the coordinator has another state than that; -1 where there is none yet."""
        try:
            with thin.connect(str(self._state / "coordinator.sock")) as coordinator:
                changed: int = coordinator.call("Overview", jobs=[], changed=seen)["changed"]
                return changed
        except (thin.NoCoordinator, thin.NoAnswer):
            return -1


def lived(text: str, directory: Path, settle_s: float | None = None) -> str:
    """The document after its day was lived. What differs only in what differs from day to day stays as it was."""
    chapter = CHAPTER.search(text)
    assert chapter is not None, "there is no day"
    day = Day(directory)

    def piece(found: re.Match[str]) -> str:
        if found[2] is not None:
            day.direct(found[2], found[3])
            return found[0]
        lines: list[str] = []
        for step in steps_of(found[1], _PROMPT):
            printed = day.follow(step, settle_s)
            lines += [f"$ {step.command}", *(step.prints if fits(printed, step.prints) else printed)]
        return "```console\n" + "".join(f"{line.rstrip()}\n" for line in lines) + "```"

    try:
        return text.replace(chapter[0], _PIECE.sub(piece, chapter[0]))
    finally:
        day.close()


def main() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="day-", dir="/var/tmp") as directory:
        new = lived(text, Path(directory), _SETTLED_S)
    before, after = CHAPTER.search(text), CHAPTER.search(new)
    if before is not None and after is not None and before[0] != after[0]:
        now = DOCUMENT.read_text(encoding="utf-8")  # somebody may have written elsewhere in it meanwhile
        DOCUMENT.write_text(now.replace(before[0], after[0]), encoding="utf-8")
        print(f"docs/{DOCUMENT.name}: the day is renewed")


if __name__ == "__main__":
    main()

"""Twice the file is twice the work, counted in calls: no file that somebody generates takes minutes."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

import dsl

HEAD = "edition = 1\npool p { slots = 2 }\n"


def job(body: str, before: str = "") -> str:
    return f"{HEAD}{before}job j {{\n  pool = p\n{body}}}\n"


def tasks(count: int, more: str = "") -> str:
    return "".join(f'  task t{n} {{\n    run = ["x"]\n{more}  }}\n' for n in range(count))


SHAPES = {
    "tasks": lambda n: job(tasks(n, "    retries = 2\n    timeout = 1h30m\n")),
    "one after the other": lambda n: job(
        "".join(f'  task t{m} {{\n run = ["x"]\n after = t{max(0, m - 1)}\n }}\n' for m in range(n))
    ),
    "tasks of one name": lambda n: job(tasks(1) * n),
    "unused lets": lambda n: job(tasks(1), "".join(f"let l{m} = 'v'\n" for m in range(n))),
    "scripts and lets": lambda n: job(
        "".join(f"  task t{m} {{ script = 'echo $l{m}' }}\n" for m in range(n)),
        "".join(f"let l{m} = 'v'\n" for m in range(n)),
    ),
    "unknown options": lambda n: job(tasks(n, "    timout = 1h\n")),
    "mistakes of syntax": lambda n: job(tasks(n, "    timeout = = 1h\n")),
    "a long list": lambda n: job(f"  task t for s in [{', '.join(f'{m}' for m in range(9 * n))}] {{ run = ['x'] }}\n"),
    "placeholders": lambda n: job(f'  task t for s in [1] {{ run = ["x", "{"${s}-" * n}"] }}\n'),
    "a brace too few": lambda n: job(tasks(n) + "  task last {\n"),
}


def calls(text: str) -> int:
    """Calls of functions, ours and built in, that checking takes."""
    counted = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        dsl.check_text(text, "x", read_file=lambda _: b"")
    finally:
        sys.setprofile(before)
    return counted


@pytest.mark.parametrize("shape", SHAPES)
def test_twice_the_file_is_twice_the_work(shape: str) -> None:
    make = SHAPES[shape]
    calls(make(1))  # what is made once for a process
    assert calls(make(200)) <= 2.3 * calls(make(100))

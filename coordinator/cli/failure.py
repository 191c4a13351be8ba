"""Why a command did not do what was asked: one sentence, a way out, and the exit status."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any


class Exit(enum.IntEnum):
    """The exit statuses of every command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    UNKNOWN = 4
    TIMEOUT = 124
    INTERRUPTED = 130


@dataclass
class Failure(Exception):
    """Ends a command. `code` is for programs, `message` and `help` are for people."""

    exit: Exit
    code: str
    message: str
    help: str | None = None
    diagnostics: list[dict[str, Any]] = field(default_factory=list)

    def __str__(self) -> str:
        return self.message

    def document(self) -> dict[str, Any]:
        """`{"error": …}` as `-o json` prints it."""
        error: dict[str, Any] = {"code": self.code, "message": self.message, "help": self.help}
        if self.diagnostics:
            error["diagnostics"] = self.diagnostics
        return {"error": error}


def failed(message: str, help_: str | None = None) -> Failure:
    return Failure(Exit.FAILED, "failed", message, help_)


def misused(message: str, help_: str | None = None) -> Failure:
    return Failure(Exit.USAGE, "usage", message, help_)


def interrupted(message: str = "interrupted", help_: str | None = None) -> Failure:
    return Failure(Exit.INTERRUPTED, "interrupted", message, help_)


def reason_of(error: OSError) -> str:
    """`No such file or directory`, whatever else the exception carries."""
    return error.strerror or str(error)

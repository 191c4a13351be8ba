"""What a daemon says of a mistake of its own: where it happened, never with which values, for they may be secrets."""

from __future__ import annotations

import os
import traceback
from pathlib import Path


def innermost(error: BaseException) -> BaseException:
    """The first error of a group, of the groups in it too: what went wrong first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def write_down(error: BaseException, path: Path) -> str:
    """Put the story of an error into a file, for who mends it; in words, where it is."""
    try:
        path.write_text(story(error), "utf-8")
    except OSError as reason:
        return f"the details could not be written to {path}: {reason.strerror}"
    return f"the details are in {path}"


def culprit(error: BaseException) -> str:
    """`KeyError at core.py:72`."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"


def story(error: BaseException) -> str:
    """The tracebacks of an error, of what caused it and of what it gathers; types and places, no messages."""
    text = ""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        text += story(cause) + "which led to\n"
    text += "".join(traceback.format_tb(error.__traceback__)) + f"{type(error).__name__}\n"
    if isinstance(error, BaseExceptionGroup):
        for number, each in enumerate(error.exceptions, 1):
            text += f"gathered, {number}:\n{story(each)}"
    return text

"""The `.batch` language: text in, diagnostics and a plain spec document out. Importing this package imports no lark."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from dsl.diagnostics import Diagnostic, Edit, Related, Severity, Span
from dsl.result import Compiled
from wire.near import near

if TYPE_CHECKING:
    from typing import Any

    from dsl.beside import Beside

ReadFile = Callable[[str], bytes]
ReadBeside = Callable[[str], "Beside"]
FORMATS: Final = ("human", "short", "json")

__all__ = [
    "FORMATS",
    "Compiled",
    "Diagnostic",
    "Edit",
    "Related",
    "Severity",
    "Span",
    "as_data",
    "check_text",
    "compile_text",
    "near",
    "render",
]


def check_text(text: str, name: str, *, read_file: ReadFile, read_beside: ReadBeside | None = None) -> list[Diagnostic]:
    """All mistakes of a file. A param without a value is none; what this version does not carry out is a warning.

    `read_file` gets paths as the file writes them, relative to it, and raises OSError; so does `read_beside`, of what
    is to be brought to nodes (`dsl.beside.reader`). Without it no such file is found.
    """
    from dsl.check import compile_source

    return compile_source(text, name, None, read_file, read_beside, execute=False).diagnostics


def compile_text(
    text: str,
    name: str,
    params: dict[str, str],
    *,
    read_file: ReadFile,
    read_beside: ReadBeside | None = None,
    execute: bool,
    jobs_needed: bool = True,
) -> Compiled:
    """The document of a file with values for its params. `execute`: what is not carried out is an error, and so is a
    file without a job, if one is needed."""
    from dsl.check import compile_source

    return compile_source(text, name, params, read_file, read_beside, execute=execute, jobs_needed=jobs_needed)


def render(diagnostics: list[Diagnostic], sources: Mapping[str, str], format: str = "human") -> str:  # noqa: A002
    """The diagnostics as text: `human` (with the source's lines), `short` (one line each) or `json` (an array)."""
    from dsl.printing import rendered

    return rendered(diagnostics, sources, format)


def as_data(diagnostics: list[Diagnostic], sources: Mapping[str, str]) -> list[dict[str, Any]]:
    """The diagnostics as JSON data."""
    from dsl.printing import all_as_data

    return all_as_data(diagnostics, sources)

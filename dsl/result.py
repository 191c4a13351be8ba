"""What compiling a file gives: the plain document, its digest, and where in the file each part of it stands."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from dsl.diagnostics import Diagnostic, Severity, Span


@dataclass(frozen=True, slots=True)
class Compiled:
    """`document` is None when there are errors, and so is its `digest`.

    `spans` has a key for every block (its header) and every option (all of it):
    `pool/NAME`, `pool/NAME/OPTION`, `job/NAME`, `job/NAME/OPTION`, `job/NAME/dir/DIR[/OPTION]`,
    `job/NAME/env/VARIABLE`, `job/NAME/prep[/OPTION]`, `job/NAME/release[/OPTION]`, `job/NAME/task/TASK[/OPTION]`,
    and below prep, release and task `…/env/VARIABLE`. A value is `[line, column, end_line, end_column]`.
    """

    file: str
    document: dict[str, Any] | None
    spans: dict[str, list[int]]
    diagnostics: list[Diagnostic]
    beside: dict[str, str] = field(default_factory=dict)
    """sha256 → path as written, of the files beside this one that its commands bring in."""
    offsets: dict[str, tuple[int, int]] = field(default_factory=dict, repr=False)

    @property
    def digest(self) -> str | None:
        """sha256 of the document: of what it means, not of how it was written."""
        import hashlib  # few ask

        return None if self.document is None else hashlib.sha256(canonical(self.document)).hexdigest()

    @property
    def has_errors(self) -> bool:
        return any(diagnostic.is_error for diagnostic in self.diagnostics)

    def refusal(self, path: str, message: str, code: str = "B801", help: str = "") -> Diagnostic:  # noqa: A002
        """A refusal of the coordinator as a diagnostic, at the nearest place in the file that `path` names."""
        while path and path not in self.offsets:
            path = path.rpartition("/")[0]
        at = self.offsets.get(path)
        span = None if at is None else Span(self.file, *at)
        return Diagnostic(code, Severity.ERROR, message, span, help=help)


def canonical(document: dict[str, Any]) -> bytes:
    """The one way to write a document: the same meaning gives the same bytes."""
    return json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()

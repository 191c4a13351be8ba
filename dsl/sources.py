"""Files that a source names: read once, as text, with limits; csv as a table of texts."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Final

from dsl import ast
from dsl.beside import Beside, ReadBeside
from dsl.diagnostics import Report
from dsl.values import Table
from wire.bounds import MAX_AXIS_VALUES, VARIABLE
from wire.landing import refuse_path

MAX_BYTES: Final = 32 * 1024 * 1024


class Sources:
    """What `csv` and `lines` read. `read_file` takes the path as written and raises OSError."""

    def __init__(
        self, report: Report, read_file: Callable[[str], bytes], read_beside: ReadBeside | None = None
    ) -> None:
        self._report = report
        self._read_file = read_file
        self._read_beside = read_beside
        self._texts: dict[str, str | None] = {}
        self._tables: dict[str, Table | None] = {}

    def text(self, path: str, place: ast.Node) -> str | None:
        if path not in self._texts:
            self._texts[path] = self._read(path, place)
        return self._texts[path]

    def table(self, path: str, place: ast.Node) -> Table | None:
        if path not in self._tables:
            content = self.text(path, place)
            self._tables[path] = None if content is None else self._parse(path, content, place)
        return self._tables[path]

    def beside(self, path: str, place: ast.Node) -> Beside | None:
        """What there is to know of a file that is brought to nodes; None when the reason was reported."""
        try:
            if (refused := refuse_path(path)) is not None:
                raise OSError(refused)
            if self._read_beside is None:
                raise OSError("nothing stands beside what is read here")
            return self._read_beside(path)
        except OSError as error:
            self._report.error("B212", f"`{path}` can't be brought in: {error.strerror or error}", place)
            return None

    def _read(self, path: str, place: ast.Node) -> str | None:
        try:
            if not path or path.startswith("/") or "\0" in path:
                raise OSError("a path is relative to the file that names it")
            content = self._read_file(path)
        except OSError as error:
            self._report.error("B212", f"`{path}` can't be read: {error.strerror or error}", place)
            return None
        if len(content) > MAX_BYTES:
            self._report.error("B212", f"`{path}` is larger than {MAX_BYTES // 2**20} MiB", place)
            return None
        try:
            decoded = content.decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            self._report.error("B212", f"`{path}` is no UTF-8 text (line {line})", place)
            return None
        if "\0" in decoded:
            self._report.error("B212", f"`{path}` holds a NUL character", place)
            return None
        return decoded

    def _parse(self, path: str, content: str, place: ast.Node) -> Table | None:
        import csv  # few files name a table

        try:
            reader = csv.reader(io.StringIO(content), strict=True)
            rows = [(reader.line_num, row) for row in reader if row]
        except csv.Error as error:
            self._report.error("B213", f"`{path}` is no csv: {error}", place)
            return None
        if not rows:
            self._report.error("B213", f"`{path}` is empty: its first row names the columns", place)
            return None
        (_, header), *body = rows
        columns = tuple(name.strip() for name in header)
        if len(set(columns)) != len(columns) or not all(columns):
            self._report.error("B213", f"the first row of `{path}` names each column once: {', '.join(columns)}", place)
            return None
        if len(body) > MAX_AXIS_VALUES:
            self._report.error("B213", f"`{path}` has {len(body)} rows: at most {MAX_AXIS_VALUES}", place)
            return None
        for number, row in body:
            if len(row) != len(columns):
                message = f"`{path}` line {number} has {len(row)} cells, its header {len(columns)}"
                self._report.error("B213", message, place)
                return None
        return Table(columns, tuple(tuple(row) for _, row in body))


def column_help(columns: tuple[str, ...]) -> str:
    usable = [name for name in columns if VARIABLE.match(name)]
    return f"its columns: {', '.join(columns)}" + ("" if usable else " (names are lowercase)")

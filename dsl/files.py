"""`file "PATH" { … }` blocks: where each lands, the one thing its content is, and the plain document of both."""

from __future__ import annotations

import re
from typing import Any, Final

from dsl import ast
from dsl.blocks import Reading
from dsl.diagnostics import Place, Report
from dsl.sources import Sources
from wire import bounds, landing

CONTENTS: Final = ("text", "from", "url")
_MODE: Final = re.compile(r"0?[0-7]{3}\Z")
_EMPTY: Final = {"text": None, "digest": None, "size_bytes": None, "url": None, "sha256": None, "mode": None}


class Files:
    def __init__(self, report: Report, sources: Sources) -> None:
        self._report = report
        self._sources = sources
        self.beside: dict[str, str] = {}
        """sha256 → path as written, of what has to be brought to the coordinator."""

    def read(self, readings: list[tuple[Reading, dict[str, Any]]], *, elevated: bool) -> list[dict[str, Any]]:
        """The files of one command, each with the values of its options. One that is wrong is reported and left out."""
        found = [made for reading, values in readings if (made := self._file(reading, values, elevated)) is not None]
        if len(readings) > bounds.MAX_FILES:
            place = readings[bounds.MAX_FILES][0].block.header
            self._report.error("B202", f"a command has at most {bounds.MAX_FILES} files", place)
        places = {reading.name: reading.block.header for reading, _ in reversed(readings)}
        # Two of one path are told where blocks are read: here it is about what lies in the way of what.
        clash = landing.clash(dict.fromkeys(file["path"] for file in found))
        if clash is not None:
            message = f"`{clash[0]}` can't land where `{clash[1]}` does: one would be a directory and a file"
            related = self._report.related(places[clash[1]], "the other one")
            self._report.error("B118", message, places[clash[0]], related=related)
        return found

    def _file(self, reading: Reading, values: dict[str, Any], elevated: bool) -> dict[str, Any] | None:
        header, path = reading.block.header, reading.name
        if not path and not reading.block.labels:
            return None
        label = reading.block.labels[0] if reading.block.labels else header
        named = isinstance(label, ast.Text) and not label.interpolates
        if named and (refused := landing.refuse_path(path)) is not None:
            self._report.error("B118", f"no file can land at `{path[:200]}`: {refused}", label)
        if reading.block.incomplete or not self._one_content(reading):
            return None
        made: dict[str, Any] = {"path": path, **_EMPTY, "text": values.get("text"), "url": values.get("url")}
        if "from" in values:
            self._bring(made, values["from"], reading.settings["from"].node.value)
        if "mode" in values:
            made["mode"] = self._mode(values["mode"], reading.settings["mode"].node.value)
        if "sha256" in reading.settings:
            made["sha256"] = self._sha256(reading, values.get("sha256"))
        if "text" in reading.settings:
            self._short(made["text"], bounds.MAX_FILE_TEXT, reading.settings["text"].node.value)
        if "url" in reading.settings:
            self._url(made, reading.settings["url"].node.value, elevated, "sha256" in reading.settings)
        return made

    def _one_content(self, reading: Reading) -> bool:
        given = [name for name in CONTENTS if name in reading.settings]
        if len(given) > 1:
            message = f"file `{reading.name}` has `{given[0]}` and `{given[1]}`: exactly one of them is its content"
            self._report.error("B107", message, reading.settings[given[1]].node)
        elif not given:
            note = "write `text = …`, `from = …` or `url = …`"
            self._report.error("B105", f"file `{reading.name}` has no content", reading.block.header, note=note)
        return len(given) == 1

    def _bring(self, made: dict[str, Any], path: str, place: ast.Node) -> None:
        found = self._sources.beside(path, place)
        if found is None:
            return
        made["mode"] = found.mode
        if found.size == 0:
            made["text"] = ""
            return
        made["digest"], made["size_bytes"] = found.digest, found.size
        self.beside[found.digest] = path

    def _mode(self, written: str, place: ast.Node) -> int | None:
        if _MODE.match(written):
            return int(written, 8)
        help_ = "set-user-id, set-group-id and sticky bits are not given" if re.match(r"0?[0-7]{4}\Z", written) else ""
        note = 'write it in octal digits: `"0755"`'
        self._report.error("B202", "`mode` is 000 to 777 in octal digits", place, note=note, help=help_)
        return None

    def _sha256(self, reading: Reading, digest: Any) -> str | None:
        setting = reading.settings["sha256"].node
        if "url" not in reading.settings:
            help_ = "what stands in the file or beside it is known by its content anyway"
            self._report.error("B107", "`sha256` is for what comes from a `url`", setting, help=help_)
        elif isinstance(digest, str) and digest != "…" and not bounds.SHA256.match(digest.lower()):
            self._report.error("B202", "`sha256` is 64 digits and letters a to f", setting.value)
        return digest.lower() if isinstance(digest, str) else None

    def _url(self, made: dict[str, Any], place: ast.Node, elevated: bool, verified: bool) -> None:
        url = made["url"]
        self._short(url, bounds.MAX_URL, place)
        scheme = landing.scheme_of(url)
        if url is None or scheme == landing.SECURE or scheme is None:
            return
        if scheme not in landing.SCHEMES:
            note = "write `https://…`" if not scheme else ""
            self._report.error("B202", "a URL begins with `https://` or `http://`", place, note=note)
        elif not verified:
            tell = self._report.error if elevated else self._report.warning
            message = "what comes over plain `http` may be anybody's: nothing says what it should be"
            whose = (
                "an elevated command takes none of it without `sha256`"
                if elevated
                else "add `sha256 = …`, or use `https`"
            )
            tell("B119", message, place, help=whose)

    def _short(self, expr: Any, limit: int, place: Place | ast.Node) -> None:
        if isinstance(expr, str) and (size := len(expr.encode("utf-8", "surrogatepass"))) > limit:
            help_ = "put it into a file beside this one, and bring that in with `from`"
            self._report.error("B211", f"{size} bytes: at most {limit} stand here", place, help=help_)

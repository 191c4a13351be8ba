"""Every `.batch` file in `golden/` against what it prints; `GOLDEN=rewrite pytest tests/dsl` writes it anew."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import dsl
from dsl.beside import reader

GOLDEN = Path(__file__).with_name("golden")
FILES = sorted(GOLDEN.glob("*.batch"))


def checked(path: Path) -> tuple[list[dsl.Diagnostic], dict[str, str]]:
    text = path.read_text(encoding="utf-8")
    read_file = lambda name: (GOLDEN / name).read_bytes()  # noqa: E731
    found = dsl.check_text(text, path.name, read_file=read_file, read_beside=reader(str(GOLDEN)))
    return found, {path.name: text}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_prints_what_it_printed(path: Path) -> None:
    found, sources = checked(path)
    printed = dsl.render(found, sources)
    expected = path.with_suffix(".out")
    if os.environ.get("GOLDEN") == "rewrite":
        expected.write_text(printed, encoding="utf-8")
    assert printed == expected.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_same_as_json_names_the_same_places(path: Path) -> None:
    found, sources = checked(path)
    documents = json.loads(dsl.render(found, sources, "json"))
    lines = dsl.render(found, sources, "short").splitlines()
    assert len(documents) == len(lines) == len(found)
    for document, line in zip(documents, lines, strict=True):
        start, end = document["span"]["start"], document["span"]["end"]
        assert line.startswith(f"{path.name}:{start['line']}:{start['column']}: ")
        assert f"{document['severity']}[{document['code']}]" in line
        assert (start["line"], start["column"]) <= (end["line"], end["column"])
        assert document["severity"] in ("error", "warning")
        assert document.keys() >= {"code", "severity", "message", "span", "related", "help", "edit"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_place_lies_within_the_file(path: Path) -> None:
    found, sources = checked(path)
    text = sources[path.name]
    for diagnostic in found:
        assert diagnostic.span is not None
        assert 0 <= diagnostic.span.start <= diagnostic.span.end <= len(text), diagnostic

"""The documents say what the code does: their tables and diagrams are made from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs import generate

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(ROOT.glob("docs/*.md"))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_repeats_from_the_code_is_what_the_code_says(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert generate.renewed(text) == text, "run `make docs`"


def test_every_generated_piece_stands_in_a_document() -> None:
    everything = "".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    assert [name for name in generate.PIECES if f"<!-- generated: {name} -->" not in everything] == []

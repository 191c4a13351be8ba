"""The day in `docs/operations.md`, lived through with real processes: every command prints what stands there."""

from __future__ import annotations

from pathlib import Path

from docs import day


def test_the_day_of_the_document_goes_as_it_is_written(tmp_path: Path) -> None:
    """Where it does not, and the document is wrong: `make docs`."""
    text = day.DOCUMENT.read_text(encoding="utf-8")
    assert day.lived(text, tmp_path).splitlines() == text.splitlines()


def test_only_what_differs_from_day_to_day_may_differ() -> None:
    assert day.fits(["node-1  risk  idle  0/2  0.8s"], ["node-1 risk   idle  0/2   12s"])
    assert not day.fits(["node-1  risk  idle  0/2  0.8s"], ["node-1  risk  idle  1/2  0.8s"])
    assert not day.fits(["daily-1 is active"], [])

"""Seeds that broke a promise once, each with what it was."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Regression:
    seed: int
    size: str
    was: str


REGRESSIONS: tuple[Regression, ...] = ()

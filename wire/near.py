"""Did you mean …? The candidates that a mistyped word may have stood for, nearest first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

MAX_WORD: Final = 100
MAX_ANSWERS: Final = 3


def near(word: str, candidates: Iterable[str]) -> list[str]:
    """At most three candidates within a third of the word's length (at least one edit), nearest first."""
    if not word or len(word) > MAX_WORD:
        return []
    limit = max(1, len(word) // 3)
    found: list[tuple[int, str]] = []
    for candidate in dict.fromkeys(candidates):
        if candidate == word or abs(len(candidate) - len(word)) > limit:
            continue
        if candidate.casefold() == word.casefold():
            found.append((0, candidate))
            continue
        away = distance(word, candidate)
        if away <= limit and away < len(word):
            found.append((away, candidate))
    found.sort(key=lambda pair: pair[0])
    return [candidate for _, candidate in found[:MAX_ANSWERS]]


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """`did you mean `a` or `b`?`, or an empty text when nothing is near."""
    found = near(word, candidates)
    return f"did you mean {' or '.join(f'`{name}`' for name in found)}?" if found else ""


def distance(left: str, right: str) -> int:
    """Insertions, deletions, replacements and swaps of neighbours that turn `left` into `right`."""
    before: list[int] = []
    above = list(range(len(right) + 1))
    for row, letter in enumerate(left, 1):
        current = [row]
        for column, other in enumerate(right, 1):
            cost = min(above[column] + 1, current[-1] + 1, above[column - 1] + (letter != other))
            if row > 1 and column > 1 and letter == right[column - 2] and left[row - 2] == other:
                cost = min(cost, before[column - 2] + 1)
            current.append(cost)
        before, above = above, current
    return above[-1]

"""How wide a text is on a terminal: letters of East Asian scripts take two columns, combining marks none."""

from __future__ import annotations

import unicodedata


def screen_width(text: str) -> int:
    """Columns that a text without control characters takes."""
    return len(text) if text.isascii() else sum(map(_of_letter, text))


def cut_to(text: str, width: int) -> str:
    """As much of the text's beginning as fits into so many columns."""
    if text.isascii():
        return text[: max(0, width)]
    taken = 0
    for place, letter in enumerate(text):
        taken += _of_letter(letter)
        if taken > width:
            return text[:place]
    return text


def _of_letter(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1

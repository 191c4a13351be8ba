"""The words of a source: our own small token, and the few sets of token types that the front end asks about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

END: Final = "$END"
"""The type of the token behind the last one."""

KEYWORDS: Final = frozenset(
    {
        "AND", "AS", "BY", "ELSE", "FALSE", "FOR", "IF", "IMPORT",
        "IN", "LET", "NOT", "NULL", "OR", "PARAM", "SECRET", "TRUE",
    }
)  # fmt: skip
STRINGS: Final = frozenset({"STRING", "RAW", "TRIPLE", "RAWTRIPLE"})
BROKEN: Final = frozenset({"BAD_NUMBER", "BAD_STRING", "BAD_TRIPLE"})
NUMBERS: Final = frozenset({"INT", "FLOAT", "DURATION", "SIZE", "DATE"})
LITERALS: Final = STRINGS | NUMBERS | BROKEN | {"TRUE", "FALSE", "NULL"}
ENDS_ITEM: Final = LITERALS | {"NAME", "RSQB", "RPAR", "LBRACE", "RBRACE", "DROPPED"}
"""What an item, or the start of a block, can end with; before a name on a new line it means that a new item begins."""

OPENERS: Final = {"LSQB": "RSQB", "LPAR": "RPAR"}
DECLARATIONS: Final = frozenset({"PARAM", "LET", "IMPORT", "SECRET"})

SPELLING: Final = {
    "LBRACE": "{", "RBRACE": "}", "LSQB": "[", "RSQB": "]", "LPAR": "(", "RPAR": ")", "COMMA": ",", "COLON": ":",
    "EQUAL": "=", "ARROW": "=>", "DOT": ".", "DOTDOT": "..", "AND": "and", "IN": "in", "ELSE": "else", "FOR": "for",
}  # fmt: skip


@dataclass(slots=True)
class Token:
    """One word. `first` says that it is the first of its line; a stand-in that recovery made has no text."""

    type: str
    text: str
    start: int
    end: int
    line: int
    column: int
    first: bool


def stand_in(kind: str, at: int, line: int) -> Token:
    """A token that the source lacks, at an offset."""
    return Token(kind, "", at, at, line, 0, False)


def looks_like_item(tokens: list[Token], at: int) -> bool:
    """Whether the token at `at`, the first of its line, most likely begins an item."""
    token, after = tokens[at], tokens[min(at + 1, len(tokens) - 1)]
    if token.type in DECLARATIONS:
        return True
    if token.type == "INT":
        return after.type in ("ARROW", "DOTDOT")
    if token.type == "ELSE":
        return after.type == "ARROW"
    if token.type != "NAME":
        return False
    if after.type in ("EQUAL", "ARROW", "LBRACE"):
        return True
    while after.type in ("NAME", "STRING", "RAW") and after.line == token.line and at + 1 < len(tokens):
        at += 1
        after = tokens[at + 1] if at + 1 < len(tokens) else after
        if after.type in ("LBRACE", "FOR"):
            return True
    return False

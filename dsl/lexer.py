"""Text to words. It never fails: what no terminal of the language takes is a word too, for somebody to speak about."""

from __future__ import annotations

import re
from typing import Final

from dsl import ast
from dsl.tables import Tables
from dsl.tokens import END, Token

_COMMENT: Final = "COMMENT"
_NAME: Final = "NAME"


class Lexer:
    """The terminals of a grammar as one expression, the first that fits wins."""

    def __init__(self, tables: Tables) -> None:
        self._expression = re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in tables.terminals))
        self._keywords = tables.keywords
        self._ignored = tables.ignored

    def words(self, text: str, start: int, end: int) -> tuple[list[Token], list[ast.Comment]]:
        """The words from `start` to `end`, with the end as the last one, and the comments between them. Offsets are
        those of the text; lines and columns count from `start`."""
        tokens: list[Token] = []
        comments: list[ast.Comment] = []
        line, line_start, last_line = 1, start, 0
        for match in self._expression.finditer(text, start, end):
            kind, word = match.lastgroup or "", match[0]
            at, behind = match.span()
            if kind not in self._ignored:
                if kind == _NAME:
                    kind = self._keywords.get(word, kind)
                # A word is the first of its line when the one before it ended on an earlier line.
                tokens.append(Token(kind, word, at, behind, line, at - line_start + 1, line > last_line))
            elif kind == _COMMENT:
                comments.append(ast.Comment(at, behind, word))
            breaks = word.count("\n")
            if breaks:
                line += breaks
                line_start = at + word.rindex("\n") + 1
            if kind not in self._ignored:
                last_line = line
        tokens.append(Token(END, "", end, end, max(last_line, 1) + 1, 0, True))
        return tokens, comments

"""The grammar's tables, as data: made once by lark, kept in a private directory of the user, read at every start."""

from __future__ import annotations

import json
import os
import zlib
from functools import cache
from typing import Any, Final, NamedTuple

from dsl.cache import keep, kept

FORM: Final = 1
"""Of what is kept. To be raised when `dsl.tablemaker` makes it otherwise of the same grammar."""


class Rule(NamedTuple):
    """What `size` values become: the value of `origin`.

    `callback` names the method of `dsl.tree.Tree` that makes it; None: the one value is passed on as it is. Rules that
    begin with `_` stand for a repetition: their value is a list, which takes the places `inlined` of another rule.
    """

    origin: str
    size: int
    callback: str | None
    inlined: list[int]


class Tables(NamedTuple):
    """`states` say for each symbol the state to go to, or `~n` to reduce by rule n."""

    starts: dict[str, int]
    ends: dict[str, int]
    rules: list[Rule]
    states: list[dict[str, int]]
    terminals: list[tuple[str, str]]
    """Name and pattern, in the order in which they are tried."""
    keywords: dict[str, str]
    """Names that are a terminal of their own."""
    ignored: frozenset[str]


@cache
def tables() -> Tables:
    """Those of the grammar."""
    grammar = text_of_grammar()
    name = f"grammar-{zlib.crc32(grammar.encode()):08x}-{FORM}.json"
    plain = _read(kept(name), grammar)
    if plain is None:
        from dsl.tablemaker import make  # lark is loaded by who needs it

        plain = make(grammar)
        keep(name, json.dumps({"grammar": grammar, **plain}, separators=(",", ":")))
    return Tables(
        plain["starts"],
        plain["ends"],
        [Rule(*rule) for rule in plain["rules"]],
        plain["states"],
        [(terminal, pattern) for terminal, pattern in plain["terminals"]],
        plain["keywords"],
        frozenset(plain["ignored"]),
    )


def text_of_grammar() -> str:
    path = os.path.join(os.path.dirname(__file__), "grammar.lark")
    with open(path, encoding="utf-8") as file:
        return file.read()


def _read(content: str | None, grammar: str) -> dict[str, Any] | None:
    """What was kept, if it is whole and of this grammar: a file that was cut off is no JSON."""
    try:
        plain: dict[str, Any] = json.loads(content or "null")
        return plain if plain["grammar"] == grammar else None
    except (ValueError, TypeError, KeyError):
        return None

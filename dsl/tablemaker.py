"""From the grammar to its tables, by lark. Slow, and needed once: `dsl.tables` keeps what is made here."""

from __future__ import annotations

from typing import Any, Final

import lark
from lark.parsers.lalr_analysis import Shift

_STARTS: Final = ("file", "interpolation")


def build(grammar: str, **options: Any) -> lark.Lark:
    return lark.Lark(
        grammar, parser="lalr", lexer="basic", start=[*_STARTS, "bad"], keep_all_tokens=True, maybe_placeholders=False,
        **options,
    )  # fmt: skip


def make(grammar: str) -> dict[str, Any]:
    """The plain tables, as `dsl.tables.Tables` takes them."""
    made = build(grammar)
    begun = {start: made.parse_interactive("", start=start) for start in _STARTS}
    parsers = {start: one.parser_state.parse_conf for start, one in begun.items()}
    numbers = {rule: number for number, rule in enumerate(made.rules)}
    states = parsers["file"].states
    return {
        "starts": {start: parser.start_state for start, parser in parsers.items()},
        "ends": {start: parser.end_state for start, parser in parsers.items()},
        "rules": [_rule(rule) for rule in made.rules],
        "states": [_steps(states[state], numbers) for state in range(len(states))],
        **_words(begun["file"].lexer_thread.lexer),
    }


def _rule(rule: Any) -> list[Any]:
    """`[origin, size, callback, inlined]`, see `dsl.tables.Rule`."""
    names = [symbol.name for symbol in rule.expansion]
    inlined = [at for at, name in enumerate(names) if name.startswith("_")]
    passed_on = rule.options.expand1 and not rule.alias
    assert not passed_on or len(names) == 1, f"{rule}: what is passed on has one part, or a name of its own"
    return [rule.origin.name, len(names), None if passed_on else rule.alias or rule.origin.name, inlined]


def _steps(row: dict[str, tuple[Any, Any]], numbers: dict[Any, int]) -> dict[str, int]:
    """For each symbol the state to go to, or `~number` of the rule to reduce by."""
    return {symbol: to if action is Shift else ~numbers[to] for symbol, (action, to) in row.items()}


def _words(lexer: Any) -> dict[str, Any]:
    """The terminals in the order in which they are tried, and the names that are words of the language."""
    tried = lexer.scanner.terminals  # the look at them makes the callbacks too
    keywords = lexer.callback["NAME"].scanner.terminals
    return {
        "terminals": [[terminal.name, terminal.pattern.to_regexp()] for terminal in tried],
        "keywords": {terminal.pattern.value: terminal.name for terminal in keywords},
        "ignored": sorted(lexer.ignore_types),
    }

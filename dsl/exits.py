"""The arms of `exit`: patterns and actions by name, their numbers in range; and the plain document of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from dsl import ast, schema
from dsl.blocks import Reader, Reading
from dsl.diagnostics import Report
from dsl.options import MISSING, Options
from dsl.schema import Kind, Option
from dsl.values import Type
from dsl.worth import Scope
from wire.bounds import MAX_ARMS, MAX_DURATION_MS, MAX_RETRIES
from wire.near import did_you_mean

NOT_YET: Final = ("output",)
"""Patterns of what this version does not do."""


class Exits:
    def __init__(self, report: Report, reader: Reader, options: Options) -> None:
        self._report = report
        self._reader = reader
        self._options = options
        self._keywords: dict[str, Callable[[ast.Keyword, Scope], Any]] = {
            "times": self._times,
            "backoff": self._backoff,
            "elsewhere": self._elsewhere,
        }

    def read(self, exits: Reading, block: str, scope: Scope) -> list[dict[str, Any]]:
        """The arms of a block's `exit` as the document has them; one that is wrong is reported and stands there as far
        as it goes."""
        arms, found = exits.arms, []
        for position, arm in enumerate(arms):
            read: dict[str, Any] = {"codes": [], "signals": [], "causes": []}
            for pattern in arm.patterns:
                self._pattern(pattern, read)
            found.append({**read, **self._action(arm.action, block, scope)})
            if any(pattern.name == "else" for pattern in arm.patterns) and position + 1 < len(arms):
                related = self._report.related(arm, "`else` matches all that is left")
                self._report.error("B304", "this arm is never reached", arms[position + 1], related=related)
                break
        if len(arms) > MAX_ARMS:
            self._report.error("B202", f"`exit` has at most {MAX_ARMS} arms", arms[MAX_ARMS])
        return found

    def _pattern(self, pattern: ast.Pattern, read: dict[str, Any]) -> None:
        if pattern.first is not None and pattern.last is not None:
            if pattern.last > 255 or pattern.first > 255:
                self._report.error("B202", "exit codes go from 0 to 255", pattern)
            elif pattern.first > pattern.last:
                turned = f"write `{pattern.last}..{pattern.first}`"
                self._report.error("B202", "this range of exit codes is empty", pattern, note=turned)
            read["codes"].append([pattern.first, pattern.last])
        elif pattern.name == "signal":
            self._signal(pattern, read)
        elif pattern.name not in (*schema.EXIT_PATTERNS, "else"):
            known = ("signal", *schema.EXIT_PATTERNS, "else")
            help_ = f"patterns: codes, ranges, signal(NAME), {', '.join(known[1:])}"
            note = did_you_mean(pattern.name, known)
            self._report.error("B110", f"unknown pattern `{pattern.name}`", pattern, note=note, help=help_)
        elif pattern.argument is not None:
            self._report.error("B210", f"`{pattern.name}` takes nothing in parentheses", pattern)
        elif pattern.name in NOT_YET:
            self._reader.unsupported(pattern, f"`{pattern.name}` in `exit`")
        else:
            read["causes"].append(pattern.name)

    def _signal(self, pattern: ast.Pattern, read: dict[str, Any]) -> None:
        if pattern.argument is None:
            note = "write `signal(SEGV)`"
            self._report.error("B210", "`signal` takes the name of a signal", pattern, note=note)
            return
        number = self._options.signal(pattern.argument, pattern.argument.text, "signal")
        if number is not MISSING:
            read["signals"].append(number)

    def _action(self, action: ast.Action, block: str, scope: Scope) -> dict[str, Any]:
        name = action.name.text
        read: dict[str, Any] = {"action": name, "times": None, "backoff": None, "elsewhere": False}
        if name not in schema.EXIT_ACTIONS:
            note = did_you_mean(name, schema.EXIT_ACTIONS)
            help_ = f"actions: {', '.join(schema.EXIT_ACTIONS)}"
            self._report.error("B110", f"unknown action `{name}`", action.name, note=note, help=help_)
            return read
        if action.arguments or (action.keywords and name != "retry"):
            help_ = "only `retry` takes any: `retry(times = 1)`"
            self._report.error("B210", f"`{name}` takes no such argument", action, help=help_)
            return read
        seen: set[str] = set()
        for keyword in action.keywords:
            take = self._keywords.get(keyword.name)
            if take is None:
                note = did_you_mean(keyword.name, self._keywords)
                self._report.error("B210", f"`retry` takes no argument `{keyword.name}`", keyword, note=note)
            elif keyword.name in seen:
                self._report.error("B103", f"`{keyword.name}` is set twice", keyword)
            elif (value := take(keyword, scope)) is not MISSING:
                read[keyword.name] = value
                if keyword.name == "elsewhere" and value is True and block != "task":
                    note = "only a task can be tried again on another node"
                    self._report.error("B210", f"a `{block}` belongs to its node", keyword, note=note)
            seen.add(keyword.name)
        return read

    def _times(self, keyword: ast.Keyword, scope: Scope) -> Any:
        value = self._options.constant(keyword.value, "`times`", "an int", scope, Type.INT)
        if value is not MISSING and not 1 <= value <= MAX_RETRIES:
            self._report.error("B202", f"`times` is 1 to {MAX_RETRIES}, found {value}", keyword.value)
        return value

    def _backoff(self, keyword: ast.Keyword, scope: Scope) -> Any:
        option = Option("backoff", Kind.BACKOFF, "", low=1, high=MAX_DURATION_MS)
        return self._options.backoff(keyword.value, option, scope)

    def _elsewhere(self, keyword: ast.Keyword, scope: Scope) -> Any:
        return self._options.constant(keyword.value, "`elsewhere`", "a bool", scope, Type.BOOL)

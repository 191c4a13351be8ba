"""The arms of `exit`: patterns and actions by name, their numbers in range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dsl import ast, schema
from dsl.diagnostics import Report
from dsl.options import MISSING, Options
from dsl.schema import Kind, Option
from dsl.values import Type
from dsl.worth import Scope
from wire.bounds import MAX_DURATION_MS, MAX_RETRIES
from wire.near import did_you_mean


class Exits:
    def __init__(self, report: Report, options: Options) -> None:
        self._report = report
        self._options = options
        self._keywords: dict[str, Callable[[ast.Keyword, Scope], Any]] = {
            "times": self._times,
            "backoff": self._backoff,
            "elsewhere": self._elsewhere,
        }

    def check(self, arms: list[ast.Arm], scope: Scope) -> None:
        for position, arm in enumerate(arms):
            for pattern in arm.patterns:
                self._pattern(pattern)
            self._action(arm.action, scope)
            if any(pattern.name == "else" for pattern in arm.patterns) and position + 1 < len(arms):
                related = self._report.related(arm, "`else` matches all that is left")
                self._report.error("B304", "this arm is never reached", arms[position + 1], related=related)
                return

    def _pattern(self, pattern: ast.Pattern) -> None:
        if pattern.first is not None and pattern.last is not None:
            if pattern.last > 255 or pattern.first > pattern.last:
                self._report.error("B202", "exit codes go from 0 to 255", pattern, help="write `130..139` for several")
        elif pattern.name == "signal":
            if pattern.argument is None:
                note = "write `signal(SEGV)`"
                self._report.error("B210", "`signal` takes the name of a signal", pattern, note=note)
            else:
                self._options.signal(pattern.argument, pattern.argument.text, "signal")
        elif pattern.name not in (*schema.EXIT_PATTERNS, "else"):
            known = ("signal", *schema.EXIT_PATTERNS, "else")
            help_ = f"patterns: codes, ranges, signal(NAME), {', '.join(known[1:])}"
            note = did_you_mean(pattern.name, known)
            self._report.error("B110", f"unknown pattern `{pattern.name}`", pattern, note=note, help=help_)
        elif pattern.argument is not None:
            self._report.error("B210", f"`{pattern.name}` takes nothing in parentheses", pattern)

    def _action(self, action: ast.Action, scope: Scope) -> None:
        name = action.name.text
        if name not in schema.EXIT_ACTIONS:
            note = did_you_mean(name, schema.EXIT_ACTIONS)
            help_ = f"actions: {', '.join(schema.EXIT_ACTIONS)}"
            self._report.error("B110", f"unknown action `{name}`", action.name, note=note, help=help_)
            return
        if action.arguments or (action.keywords and name != "retry"):
            help_ = "only `retry` takes any: `retry(times = 1)`"
            self._report.error("B210", f"`{name}` takes no such argument", action, help=help_)
            return
        seen: set[str] = set()
        for keyword in action.keywords:
            read = self._keywords.get(keyword.name)
            if read is None:
                note = did_you_mean(keyword.name, self._keywords)
                self._report.error("B210", f"`retry` takes no argument `{keyword.name}`", keyword, note=note)
            elif keyword.name in seen:
                self._report.error("B103", f"`{keyword.name}` is set twice", keyword)
            else:
                read(keyword, scope)
            seen.add(keyword.name)

    def _times(self, keyword: ast.Keyword, scope: Scope) -> None:
        value = self._options.constant(keyword.value, "`times`", "an int", scope, Type.INT)
        if value is not MISSING and not 1 <= value <= MAX_RETRIES:
            self._report.error("B202", f"`times` is 1 to {MAX_RETRIES}, found {value}", keyword.value)

    def _backoff(self, keyword: ast.Keyword, scope: Scope) -> None:
        option = Option("backoff", Kind.BACKOFF, "", low=1, high=MAX_DURATION_MS)
        self._options.backoff(keyword.value, option, scope)

    def _elsewhere(self, keyword: ast.Keyword, scope: Scope) -> None:
        self._options.constant(keyword.value, "`elsewhere`", "a bool", scope, Type.BOOL)

"""The LALR automaton, driven by hand: it can say what it would take, and be wound back, which lark's own loop can't."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from dsl.tables import Rule, Tables
from dsl.tokens import END, Token

ITEM: Final = "PARAM"
"""A token type that only an item begins with: the states that shift it are the places between items."""

Maker = Callable[[list[Any]], Any]


def makers(rules: list[Rule], callbacks: object) -> list[Maker | None]:
    """For each rule what makes its value of its parts, by the methods of `callbacks`; None passes the one part on."""
    return [None if rule.callback is None else _maker(rule, callbacks) for rule in rules]


def _maker(rule: Rule, callbacks: object) -> Maker:
    if rule.origin.startswith("_"):
        return _longer if rule.inlined else list
    made: Maker = getattr(callbacks, str(rule.callback))
    return partial(_flat, made, rule.inlined) if rule.inlined else made


def _longer(parts: list[Any]) -> list[Any]:
    """A repetition and what follows it: the list that is there already."""
    repeated: list[Any] = parts[0]
    repeated += parts[1:]
    return repeated


def _flat(made: Maker, inlined: list[int], parts: list[Any]) -> Any:
    """The value of parts of which some are repetitions."""
    for at in reversed(inlined):
        parts[at : at + 1] = parts[at]
    return made(parts)


class Machine:
    """One parse. Invariant: the stack of states is one longer than the stacks of values and of their first offsets."""

    def __init__(self, tables: Tables, made_by: list[Maker | None], start: str) -> None:
        self._rules = tables.rules
        self._rows = tables.states
        self._end = tables.ends[start]
        self._made_by = made_by
        self.states = [tables.starts[start]]
        self.values: list[Any] = []
        self.starts: list[int] = []

    def feed(self, token: Token) -> bool:
        """Take the token, or change nothing but finished reductions and say no."""
        states, rows, kind = self.states, self._rows, token.type
        while True:
            step = rows[states[-1]].get(kind)
            if step is None:
                return False
            if step >= 0:
                states.append(step)
                self.values.append(token)
                self.starts.append(token.start)
                return True
            made_by = self._made_by[~step]
            if made_by is None:
                states[-1] = rows[states[-2]][self._rules[~step].origin]
            else:
                self._reduce(self._rules[~step], made_by, token.start)
            if kind == END and states[-1] == self._end:
                return True

    def takes(self, types: list[str]) -> bool:
        return self.survives(types) == len(types)

    def survives(self, types: list[str], stack: list[int] | None = None) -> int:
        """How many of these tokens, in turn, could be taken from here."""
        rows, rules = self._rows, self._rules
        stack = list(self.states if stack is None else stack)
        for count, kind in enumerate(types):
            while True:
                step = rows[stack[-1]].get(kind)
                if step is None:
                    return count
                if step >= 0:
                    stack.append(step)
                    break
                origin, size = rules[~step][:2]
                if size:
                    del stack[-size:]
                goto = rows[stack[-1]].get(origin)
                if goto is None:
                    return count
                stack.append(goto)
                if kind == END and goto == self._end:
                    break
        return len(types)

    def height_that_takes(self, types: list[str]) -> int | None:
        """How much of the stack to keep so that these tokens fit, without leaving the item that was begun."""
        for height in range(len(self.states), 0, -1):
            stack = self.states[:height]
            if self._begins_item(stack[-1]):
                return None
            if self.survives(types, stack) == len(types):
                return height
        return None

    def between_items(self) -> bool:
        """Whether an item could begin right here, with nothing left to finish before."""
        return self._begins_item(self.states[-1])

    def pop(self) -> int:
        """Forget the last value. The offset at which it began."""
        self.states.pop()
        self.values.pop()
        return self.starts.pop()

    @property
    def finished(self) -> bool:
        return self.states[-1] == self._end

    def result(self) -> Any:
        return self.values[-1]

    def _begins_item(self, state: int) -> bool:
        step = self._rows[state].get(ITEM)
        return step is not None and step >= 0

    def _reduce(self, rule: Rule, made_by: Maker, start: int) -> None:
        size = rule.size
        parts: list[Any] = []
        if size:
            parts = self.values[-size:]
            start = self.starts[-size]
            del self.states[-size:], self.values[-size:], self.starts[-size:]
        value = made_by(parts)
        self.states.append(self._rows[self.states[-1]][rule.origin])
        self.values.append(value)
        self.starts.append(start)

"""The LALR automaton, driven by hand: it can say what it would take, and be wound back, which lark's own loop can't."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from dsl.tokens import END, Token

ITEM: Final = "PARAM"
"""A token type that only an item begins with: the states that shift it are the places between items."""


@dataclass(frozen=True, slots=True)
class Tables:
    """States to token types to (action, argument): shift to a state, or reduce by a rule."""

    states: dict[int, dict[str, tuple[Any, Any]]]
    start: int
    end: int
    callbacks: dict[Any, Callable[[list[Any]], Any]]
    shift: Any


class Machine:
    """One parse. Invariant: the stack of states is one longer than the stacks of values and of their first offsets."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.states = [tables.start]
        self.values: list[Any] = []
        self.starts: list[int] = []

    def feed(self, token: Token) -> bool:
        """Take the token, or change nothing but finished reductions and say no."""
        states, tables, kind = self.states, self._tables, token.type
        while True:
            step = tables.states[states[-1]].get(kind)
            if step is None:
                return False
            action, target = step
            if action is tables.shift:
                states.append(target)
                self.values.append(token)
                self.starts.append(token.start)
                return True
            self._reduce(target, token.start)
            if kind == END and states[-1] == tables.end:
                return True

    def takes(self, types: list[str]) -> bool:
        return self.survives(types) == len(types)

    def survives(self, types: list[str], stack: list[int] | None = None) -> int:
        """How many of these tokens, in turn, could be taken from here."""
        tables = self._tables
        stack = list(self.states if stack is None else stack)
        for count, kind in enumerate(types):
            while True:
                step = tables.states[stack[-1]].get(kind)
                if step is None:
                    return count
                action, target = step
                if action is tables.shift:
                    stack.append(target)
                    break
                size = len(target.expansion)
                if size:
                    del stack[-size:]
                goto = tables.states[stack[-1]].get(target.origin.name)
                if goto is None:
                    return count
                stack.append(goto[1])
                if kind == END and stack[-1] == tables.end:
                    break
        return len(types)

    def height_that_takes(self, types: list[str]) -> int | None:
        """How much of the stack to keep so that these tokens fit, without leaving the item that was begun."""
        tables = self._tables
        for height in range(len(self.states), 0, -1):
            stack = self.states[:height]
            step = tables.states[stack[-1]].get(ITEM)
            if step is not None and step[0] is tables.shift:
                return None
            if self.survives(types, stack) == len(types):
                return height
        return None

    def between_items(self) -> bool:
        """Whether an item could begin right here, with nothing left to finish before."""
        step = self._tables.states[self.states[-1]].get(ITEM)
        return step is not None and step[0] is self._tables.shift

    def pop(self) -> int:
        """Forget the last value. The offset at which it began."""
        self.states.pop()
        self.values.pop()
        return self.starts.pop()

    @property
    def finished(self) -> bool:
        return self.states[-1] == self._tables.end

    def result(self) -> Any:
        return self.values[-1]

    def _reduce(self, rule: Any, start: int) -> None:
        tables, size = self._tables, len(rule.expansion)
        if size:
            children = self.values[-size:]
            start = self.starts[-size]
            del self.states[-size:], self.values[-size:], self.starts[-size:]
        else:
            children = []
        value = tables.callbacks[rule](children)
        self.states.append(tables.states[self.states[-1]][rule.origin.name][1])
        self.values.append(value)
        self.starts.append(start)

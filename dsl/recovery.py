"""Goes on after a mistake: the smallest change to the tokens with which the next few fit, or else panic, which drops
the item and marks the gap. What is reported is the change that was needed; its echo where it goes on is muted."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from dsl.diagnostics import Place, Report
from dsl.machine import Machine
from dsl.tokens import (
    BROKEN,
    END,
    ENDS_ITEM,
    KEYWORDS,
    LITERALS,
    SPELLING,
    Token,
    looks_like_item,
    stand_in,
)

AHEAD: Final = 5
"""A repair is believed when so many tokens fit after it."""
MAX_REPORTED: Final = 100
_INSERTED: Final = ("COLON", "RSQB", "RPAR", "IN", "FOR", "ARROW", "ELSE")
_SIGNS: Final = frozenset(
    {*SPELLING, "CMP", "PLUS", "MINUS", "STAR", "SLASH", "SLASHES", "PERCENT", "MISFIT", "BAD_CHAR"}
)
_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Change(enum.Enum):
    """What a repair does with the token that does not fit."""

    INSERT = "insert"  # a token before it
    REPLACE = "replace"  # it by another
    DELETE = "delete"  # it
    UNDO = "undo"  # forget the one before it
    JOIN = "join"  # the one before, it and the one after are one name
    SWAP = "swap"  # it and the one after change places
    SWAP_BACK = "swap back"  # it and the one before do
    VALUE = "value"  # a value is missing before the name before it


@dataclass(frozen=True, slots=True)
class Repair:
    change: Change
    kind: str
    code: str
    message: str
    note: str = ""
    help: str = ""
    edit: str | None = None


def drive(machine: Machine, tokens: list[Token], text: str, report: Report) -> tuple[set[str], list[Place]]:
    """Feed all tokens, mending on the way. The words of everything that had to be dropped, and the places."""
    driver = _Driver(machine, tokens, text, report)
    at = 0
    while at < len(tokens):
        at = at + 1 if machine.feed(tokens[at]) else driver.mend(at)
    return driver.lost, driver.places


class _Driver:
    def __init__(self, machine: Machine, tokens: list[Token], text: str, report: Report) -> None:
        self.machine = machine
        self.tokens = tokens
        self.text = text
        self.report = report
        self.lost: set[str] = set()
        self.places: list[Place] = []
        """Where something was mended or dropped, also what was not told."""
        self._muted = -1
        self._last_panic = -1
        self._reported = 0

    def mend(self, at: int) -> int:
        """The token at `at` does not fit. Change what is needed; where to go on."""
        repair = self._repair(at)
        if repair is None:
            return self._panic(at)
        self._tell_repair(repair, at)
        token, before = self.tokens[at], self.tokens[at - 1]
        match repair.change:
            case Change.INSERT:
                self.machine.feed(stand_in(repair.kind, before.end, before.line))
                return at
            case Change.REPLACE:
                self.machine.feed(replace(token, type=repair.kind))
            case Change.UNDO:
                self.machine.pop()
                return at
            case Change.JOIN:
                start = self.machine.pop()
                after = self.tokens[at + 1]
                self.machine.feed(replace(before, text=f"{before.text}_{after.text}", start=start, end=after.end))
                return at + 2
            case Change.SWAP:
                self.machine.feed(self.tokens[at + 1])
                self.machine.feed(token)
                return at + 2
            case Change.SWAP_BACK:
                self.machine.pop()
                self.machine.feed(token)
                self.machine.feed(before)
            case Change.VALUE:
                self.machine.pop()
                self.machine.feed(stand_in("BAD_NUMBER", before.start, before.line))
                self.machine.feed(before)
                return at
            case Change.DELETE:
                pass
        return at + 1

    # ---- choosing

    def _repair(self, at: int) -> Repair | None:
        kinds = [token.type for token in self.tokens[at : at + AHEAD + 1]]
        best, reach = None, 0
        for repair in self._candidates(at):
            fits = self._reach(repair, kinds)
            if fits > reach:
                best, reach = repair, fits
        needed = min(AHEAD, len(kinds))
        return best if reach >= needed else None

    def _reach(self, repair: Repair, kinds: list[str]) -> int:
        """How many tokens from the misfit on are dealt with when the repair is made."""
        machine = self.machine
        match repair.change:
            case Change.INSERT:
                return machine.survives([repair.kind, *kinds]) - 1
            case Change.REPLACE:
                return machine.survives([repair.kind, *kinds[1:]])
            case Change.DELETE:
                return machine.survives(kinds[1:]) + 1 if len(kinds) > 1 else 0
            case Change.UNDO:
                return machine.survives(kinds, machine.states[:-1])
            case Change.JOIN:
                return machine.survives(["NAME", *kinds[2:]], machine.states[:-1]) + 1
            case Change.SWAP:
                return machine.survives([kinds[1], kinds[0], *kinds[2:]]) if len(kinds) > 1 else 0
            case Change.SWAP_BACK:
                return machine.survives([kinds[0], repair.kind, *kinds[1:]], machine.states[:-1]) - 1
            case Change.VALUE:
                return machine.survives(["BAD_NUMBER", "NAME", *kinds], machine.states[:-1]) - 2

    def _candidates(self, at: int) -> Iterator[Repair]:
        """Likely repairs first: of two that reach equally far the first is taken."""
        tokens = self.tokens
        token, before, after = tokens[at], tokens[at - 1] if at else tokens[at], tokens[min(at + 1, len(tokens) - 1)]
        shown = f"`{token.text[:40]}`" if token.text else "the end"
        if token.type == "LBRACE" and before.type == "EQUAL":
            name = tokens[at - 2].text if at > 1 else "name"
            yield Repair(
                Change.UNDO, "", "B013", "`{ }` is a block, not a value", f"remove the `=`: `{name} {{ … }}`"
            )  # fmt: skip
        if token.type == "MINUS" and before.end == token.start and after.start == token.end and after.type == "NAME":
            whole = f"{before.text}_{after.text}"
            yield Repair(Change.JOIN, "", "B021", "a name has no `-`", f"write `{whole}`", edit=whole)
        if token.type == "COLON":
            yield Repair(Change.REPLACE, "EQUAL", "B011", "a value is given with `=`, not `:`", "write `=`", edit="=")
        if token.type == "EQUAL":
            yield Repair(Change.REPLACE, "COLON", "B001", "expected `:`, found `=`", "write `:`", edit=":")
            yield Repair(Change.REPLACE, "CMP", "B001", "`=` gives a value; to compare write `==`", edit="==")
        if token.type == "CMP" and before.type in LITERALS | {"NAME", "RPAR", "RSQB"}:
            help_ = "write `a < b and b < c`"
            yield Repair(Change.REPLACE, "AND", "B018", "comparisons do not chain", help=help_)
        if token.type in KEYWORDS and not token.first:
            yield Repair(Change.REPLACE, "NAME", "B019", f"`{token.text}` is a reserved word, no name")
        if token.type == "LBRACE" and self.machine.takes(["LSQB"]):
            yield Repair(Change.REPLACE, "LSQB", "B001", "a list stands in `[ ]`", "write `[`", edit="[")
        if token.type == "ARROW" or (token.type == "CMP" and token.text in ("==", "<=", ">=")):
            yield Repair(Change.REPLACE, "EQUAL", "B011", f"a value is given with `=`, not `{token.text}`", edit="=")
        if token.type == "EQUAL":
            yield Repair(Change.REPLACE, "ARROW", "B001", "an action follows `=>`, not `=`", "write `=>`", edit="=>")
        if (
            token.type == "EQUAL"
            and not token.first
            and before.type == "NAME"
            and at > 1
            and tokens[at - 2].type == "EQUAL"
        ):
            yield Repair(Change.VALUE, "", "B010", "a value is missing after `=`", "expected a value")
        yield from self._insertions(token, before)
        if token.type == "COMMA":
            where = "options need no `,` between them" if self.machine.takes(["DROPPED"]) else ""
            yield Repair(Change.DELETE, "", "B014", "stray `,`", "remove it", where, "")
        elif token.type not in (END, "RBRACE", "LBRACE") and not (token.first and looks_like_item(tokens, at)):
            yield Repair(Change.DELETE, "", "B001", f"unexpected {shown}", self._expectation(), edit="")
        yield from self._exchanges(token, before, after)

    def _exchanges(self, token: Token, before: Token, after: Token) -> Iterator[Repair]:
        """A sign in the place of another, or two words in the wrong order."""
        if token.type in ("LBRACE", "RBRACE"):
            return  # the braces match by now: none is touched any more
        if token.type in _SIGNS and not token.first:
            for kind in ("EQUAL", "COMMA", "COLON", "RSQB", "RPAR", "LSQB", "LPAR", "DOTDOT", "IN", "FOR"):
                message = f"expected `{SPELLING[kind]}`, found `{token.text}`"
                yield Repair(Change.REPLACE, kind, "B001", message, edit=SPELLING[kind])
            yield Repair(Change.REPLACE, "BAD_NUMBER", "B001", f"expected a value, found `{token.text}`")
            yield Repair(Change.REPLACE, "NAME", "B001", f"expected a name, found `{token.text}`")
        if after.line == token.line and after.type not in (END, "LBRACE", "RBRACE"):
            message = f"`{after.text[:20]}` stands before `{token.text[:20]}`"
            yield Repair(Change.SWAP, "", "B001", message)
        if before.line == token.line and before is not token and before.type in self._shifted():
            message = f"`{token.text[:20]}` stands before `{before.text[:20]}`"
            yield Repair(Change.SWAP_BACK, before.type, "B001", message)

    def _shifted(self) -> tuple[str, ...]:
        """The type of the last value, when it is a token that was taken and nothing was made of it yet."""
        last = self.machine.values[-1] if self.machine.values else None
        return (last.type,) if isinstance(last, Token) else ()

    def _insertions(self, token: Token, before: Token) -> Iterator[Repair]:
        shown = f", found `{token.text[:40]}`" if token.text else ""
        if token.type not in ("LBRACE", END) and not token.first:
            yield Repair(Change.INSERT, "EQUAL", "B012", "missing `=`", "write `=` before this", edit="= ")
        yield Repair(
            Change.INSERT, "COMMA", "B015", "missing `,` between two elements", "write `,` before this", edit=", "
        )
        for kind in ("RSQB", "RPAR") if token.first else _INSERTED:
            sign = SPELLING[kind]
            yield Repair(Change.INSERT, kind, "B001", f"expected `{sign}`{shown}", f"write `{sign}` before this")
        if token.first and before.type in ENDS_ITEM:
            if token.type in ("EQUAL", "LBRACE", "STRING", "RAW"):
                yield Repair(Change.INSERT, "NAME", "B001", f"expected a name{shown}")
            return
        if before.type == "EQUAL":
            yield Repair(Change.INSERT, "BAD_NUMBER", "B010", "a value is missing after `=`", "expected a value")
        else:
            yield Repair(Change.INSERT, "BAD_NUMBER", "B001", f"expected a value{shown}")
        yield Repair(Change.INSERT, "NAME", "B001", f"expected a name{shown}")

    def _expectation(self) -> str:
        """What would fit here, in words, shortest list first."""
        takes = self.machine.takes
        found: list[str] = []
        if takes(["PARAM"]):
            found.append("an option or a block")
        elif takes(["INT"]) and takes(["LSQB"]):
            found.append("a value")
        elif takes(["NAME"]):
            found.append("a name")
        for kind in ("EQUAL", "COLON", "IN", "ARROW", "LBRACE", "RSQB", "RPAR", "COMMA"):
            if takes([kind]) and len(found) < 4 and not (found and found[0] == "an option or a block"):
                found.append(f"`{SPELLING[kind]}`")
        return f"expected {' or '.join(found)}" if found else ""

    # ---- telling

    def _tell_repair(self, repair: Repair, at: int) -> None:
        token, before = self.tokens[at], self.tokens[at - 1] if at else self.tokens[at]
        place = Place(token.start, token.end)
        edited = place
        if repair.change is Change.INSERT:
            edited = Place(token.start, token.start)
            if repair.kind in ("RSQB", "RPAR", "COLON") or token.first or token.type == END:
                edited = Place(before.end, before.end)
                place = Place(before.end, before.end) if token.first or token.type == END else place
        if repair.code == "B013":
            place = edited = Place(before.start, before.end)
        if repair.change is Change.JOIN:
            place = edited = Place(before.start, self.tokens[at + 1].end)
        edit = None if repair.edit is None else self.report.edit(edited, repair.edit)
        note = repair.note if not (token.first and repair.change is Change.INSERT) else repair.note.replace(
            "before this", "here"
        )  # fmt: skip
        self._tell(at, repair.code, repair.message, place, note, repair.help, edit)

    def _tell(
        self, at: int, code: str, message: str, place: Place, note: str = "", help_: str = "", edit: object = None
    ) -> None:
        """Report, unless it is the echo of what was reported before."""
        self.places.append(place)
        near = self.tokens[max(0, at - 1) : at + 1]
        echo = at == self._muted or any(token.type in BROKEN and token.text for token in near)
        echo = echo or self.tokens[at].type == "BAD_CHAR"
        if echo or self._reported >= MAX_REPORTED:
            return
        self._reported += 1
        self.report.error(code, message, place, note=note, help=help_, edit=edit)

    # ---- panic

    def _panic(self, at: int) -> int:
        token = self.tokens[at]
        if at != self._last_panic:
            self._tell_panic(at)
        elif token.type == END:
            return self._close(at)
        else:
            at += 1  # nothing was gained at this token: leave it out
        self._last_panic = at
        brace = self._header_brace(at)
        if brace is not None:
            return brace
        return self._drop_item(at)

    def _tell_panic(self, at: int) -> None:
        token, before = self.tokens[at], self.tokens[at - 1] if at else self.tokens[at]
        if before.type == "NAME" and (token.type == "RBRACE" or token.first) and self.machine.takes(["EQUAL"]):
            where = Place(before.start, before.end)
            note = f"write `{before.text} = …` or `{before.text} {{ … }}`"
            self._tell(at, "B012", f"`{before.text}` has no value", where, note)
            return
        found = f", found `{token.text[:40]}`" if token.text else ""
        expected = self._expectation() or "this does not fit here"
        where = Place(token.start, token.end)
        self._tell(at, "B001", f"{expected}{found}", where)

    def _close(self, at: int) -> int:
        """At the end of the file, with blocks open that a repair began: close them."""
        token = self.tokens[at]
        while not self.machine.takes([END]) and self.machine.feed(stand_in("RBRACE", token.start, token.line)):
            pass
        return at if self.machine.takes([END]) else at + 1

    def _header_brace(self, at: int) -> int | None:
        """In the header of a block: leave out what does not fit, keep the block. The index of its `{`."""
        line = self.tokens[at].line
        brace = at
        while self.tokens[brace].type != "LBRACE":
            if self.tokens[brace].line != line or self.tokens[brace].type in ("RBRACE", END):
                return None
            brace += 1
        machine = self.machine
        if machine.takes(["PARAM"]):
            return None  # the item before is complete
        height = machine.height_that_takes(["DROPPED", "LBRACE"])
        if height is None:
            return None
        while len(machine.states) > height:
            machine.pop()
        self._feed_dropped(self.tokens[at].start, self.tokens[brace].start, at)
        return brace

    def _drop_item(self, at: int) -> int:
        """Forget the item that was begun and go to where the next one most likely begins."""
        machine = self.machine
        start = self.tokens[at].start
        if not machine.takes(["DROPPED"]) or not machine.takes(["PARAM"]):
            while not machine.between_items():
                start = machine.pop()
        goes_on = self._next_item(at)
        self._feed_dropped(start, max(start, self.tokens[goes_on].start), at)
        self._muted = goes_on
        return goes_on

    def _feed_dropped(self, start: int, end: int, at: int) -> None:
        words = set(_WORD.findall(self.text, start, end))
        self.lost |= words
        self.machine.feed(Token("DROPPED", " ".join(words), start, end, self.tokens[at].line, 0, False))

    def _next_item(self, at: int) -> int:
        depth = 0
        while True:
            token = self.tokens[at]
            if token.type == END or (token.type == "RBRACE" and depth == 0):
                return at
            if depth == 0 and token.first and looks_like_item(self.tokens, at):
                return at
            depth += (token.type == "LBRACE") - (token.type == "RBRACE")
            at += 1

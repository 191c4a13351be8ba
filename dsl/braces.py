"""Braces that don't match: where one is missing or too much, told by how the file is indented."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from dsl.diagnostics import Place, Report
from dsl.tokens import END, ENDS_ITEM, LITERALS, OPENERS, Token, looks_like_item, stand_in

MAX_LINE: Final = 200
"""So many tokens back are looked at for what a line has open."""


def match_braces(tokens: list[Token], report: Report, *, quiet: bool) -> list[Token]:
    """With a `{` or `}` too few or too many, the indentation tells which: a block's own lines stand further right than
    its header, its `}` below its header."""
    if _balance(tokens) == 0 and not _goes_negative(tokens):
        return tokens
    tokens = [_plausible(tokens, at) for at in range(len(tokens))]
    balance = _balance(tokens)
    if balance == 0 and not _goes_negative(tokens):
        return tokens
    found = Report(report.file)
    mended = _by_indentation(tokens, found)
    if len(found.found) > abs(balance) + 1:
        found = Report(report.file)
        mended = _by_count(tokens, found)
    if not quiet:
        report.found.extend(found.found)
    return mended


def _balance(tokens: list[Token]) -> int:
    return sum((token.type == "LBRACE") - (token.type == "RBRACE") for token in tokens)


def _plausible(tokens: list[Token], at: int) -> Token:
    """The token; or, when it is a brace that can't be meant as one, a misfit for the parser to mend."""
    token = tokens[at]
    if token.type == "LBRACE" and token.text:
        before, after = tokens[at - 1] if at else token, tokens[at + 1]
        ends_line = after.line != token.line or after.type in ("RBRACE", END)
        follows = before.type in LITERALS | {"NAME", "RSQB", "RPAR"} and (ends_line or not token.first)
        if not follows or not (ends_line or after.type == "LBRACE" or looks_like_item(tokens, at + 1)):
            return replace(token, type="MISFIT")
    if token.type == "RBRACE" and token.text and not token.first:
        line = _before_on_line(tokens, at)
        opened = line.count("LBRACE") - line.count("RBRACE")
        brackets = sum(line.count(kind) - line.count(other) for kind, other in OPENERS.items())
        ends_line = tokens[at + 1].line != token.line
        if (opened <= 0 and not ends_line) or tokens[at - 1].type not in ENDS_ITEM or brackets > 0:
            return replace(token, type="MISFIT")
    return token


def _before_on_line(tokens: list[Token], at: int) -> list[str]:
    """The types of the tokens before this one on its line."""
    start = at
    while start and at - start < MAX_LINE and tokens[start - 1].line == tokens[at].line:
        start -= 1
    return [token.type for token in tokens[start:at]]


def _goes_negative(tokens: list[Token]) -> bool:
    depth = 0
    for token in tokens:
        depth += (token.type == "LBRACE") - (token.type == "RBRACE")
        if depth < 0:
            return True
    return False


def _by_indentation(tokens: list[Token], report: Report) -> list[Token]:
    line_starts: dict[int, Token] = {}
    for token in tokens:
        line_starts.setdefault(token.line, token)
    kept: list[Token] = []
    opened: list[tuple[int, Token, Token]] = []  # column, header, brace

    def close(at: Token) -> None:
        _, header, brace = opened.pop()
        last = kept[-1]
        if last.type not in ENDS_ITEM and last.text:
            kept.pop()  # what stands where the brace should be
            if last.type != "BAD_CHAR":
                report.error("B001", f"expected `}}`, found `{last.text[:40]}`", last, edit=report.edit(last, "}"))
        else:
            report.error("B005", "this block is not closed", Place(header.start, brace.end), help="a `}` is missing")
        kept.append(stand_in("RBRACE", last.end, at.line))

    for token in tokens:
        column = token.column
        if token.type == END:
            while opened:
                close(token)
        elif token.type == "RBRACE":
            if token.first:
                while opened and column < opened[-1][0] and any(column == other for other, _, _ in opened[:-1]):
                    close(token)
                wrong = not opened or column > opened[-1][0]
            else:
                wrong = not opened or opened[-1][2].line != token.line
            if wrong and not _insert_brace(kept, column, token, report):
                report.error("B006", "this `}` closes nothing", token)
                continue
            if not wrong:
                opened.pop()
        else:
            while token.first and opened and column <= opened[-1][0] and token.line > opened[-1][2].line:
                close(token)
            if token.type == "LBRACE":
                header = line_starts[token.line]
                opened.append((header.column, header, token))
        kept.append(token)
    return kept


def _insert_brace(kept: list[Token], column: int, close: Token, report: Report) -> bool:
    """For a `}` too many: the line that lacks the `{`, if there is one: its own, or the one above in its column."""
    if not close.first:
        return _insert_on_line(kept, close, report)
    for at in range(len(kept) - 1, -1, -1):
        token = kept[at]
        if not token.first or token.column != column or token.line == close.line:
            continue
        if token.type != "NAME":
            return False
        last = at
        while last + 1 < len(kept) and kept[last + 1].line == token.line:
            last += 1
        if any(other.type in ("EQUAL", "LBRACE", "ARROW") for other in kept[at : last + 1]):
            return False
        end = kept[last]
        if end.type not in ENDS_ITEM and last > at:
            if end.type != "BAD_CHAR":
                report.error("B001", f"expected `{{`, found `{end.text[:40]}`", end, edit=report.edit(end, "{"))
            kept[last] = stand_in("LBRACE", end.start, token.line)
            return True
        place = Place(end.end, end.end)
        report.error("B001", "expected `{`", place, note="write `{` here", edit=report.edit(place, " {"))
        kept.insert(last + 1, stand_in("LBRACE", end.end, token.line))
        return True
    return False


def _insert_on_line(kept: list[Token], close: Token, report: Report) -> bool:
    """`dir market size = 6GiB }`: the `{` belongs before the name of the first option."""
    start = len(kept)
    while start and kept[start - 1].line == close.line:
        start -= 1
    equal = next((at for at in range(start, len(kept)) if kept[at].type == "EQUAL"), start)
    if equal - start < 2 or any(token.type == "LBRACE" for token in kept[start:equal]):
        return False
    first, wrong = kept[equal - 1], kept[equal - 2]
    names = ("NAME", "STRING", "RAW")
    if wrong.type not in names and equal - start > 2 and all(token.type in names for token in kept[start : equal - 2]):
        if wrong.type != "BAD_CHAR":
            report.error("B001", f"expected `{{`, found `{wrong.text[:40]}`", wrong, edit=report.edit(wrong, "{"))
        kept[equal - 2] = stand_in("LBRACE", wrong.start, wrong.line)
        return True
    if any(token.type not in names for token in kept[start:equal]):
        return False
    place = Place(first.start, first.start)
    report.error("B001", "expected `{`", first, note="write `{` before this", edit=report.edit(place, "{ "))
    kept.insert(equal - 1, stand_in("LBRACE", first.start, first.line))
    return True


def _by_count(tokens: list[Token], report: Report) -> list[Token]:
    """Without an indentation to go by: close at the end what is open, drop what closes nothing."""
    kept: list[Token] = []
    opened: list[Token] = []
    for token in tokens:
        if token.type == "LBRACE":
            opened.append(token)
        elif token.type == "RBRACE":
            if not opened:
                report.error("B006", "this `}` closes nothing", token)
                continue
            opened.pop()
        elif token.type == END and opened:
            report.error("B005", "this block is not closed", opened[-1], help="a `}` is missing")
            kept.extend(stand_in("RBRACE", token.start, token.line) for _ in opened)
        kept.append(token)
    return kept

"""What can be told from the words and their lines alone, before parsing: broken literals, braces that don't match, a
value that is not on the line of its `=`. Each mistake is reported and mended, so that the parser meets no echo."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from dsl import literals
from dsl.braces import match_braces
from dsl.diagnostics import Place, Report
from dsl.tokens import (
    BROKEN,
    END,
    ENDS_ITEM,
    LITERALS,
    OPENERS,
    Token,
    looks_like_item,
    stand_in,
)

_CHARACTER_HELP: Final = {
    ";": "one option a line; nothing stands at its end",
    "!": "write `not`",
    "&": "write `and`",
    "|": "write `or`",
    "$": "names stand alone here; `$` belongs in scripts, `${ }` in double quotes",
    "`": "quote with ' or \"",
    "?": "write `x if condition else y`",
    "\\": "lines need no continuation mark",
}
MAX_LINE: Final = 200
"""So many tokens back are looked at for what a line has open."""
_GOES_ON: Final = frozenset({"LBRACE", "FOR", "EQUAL", "ARROW", "COMMA", "LPAR", "DOT", "COLON"})
_ARM: Final = frozenset({"ARROW", "COMMA", "DOTDOT"})
_UNITS: Final = frozenset({*literals.DURATION_UNITS, *literals.SIZE_UNITS, *literals.MEANT})


def mend(tokens: list[Token], report: Report) -> list[Token]:
    """The tokens with the mistakes of their layout reported and mended. The last one is the end of the file."""
    tokens = _broken_words(_foreign_comments(tokens, report), report)
    lost_tail = any(token.type == "BAD_TRIPLE" for token in tokens)
    tokens = _split_units(tokens, report)
    tokens = match_braces(tokens, report, quiet=lost_tail)
    return _lines(tokens, report)


def _foreign_comments(tokens: list[Token], report: Report) -> list[Token]:
    """Comments of other languages: `// …` at the beginning of a line, where no bracket is open, or before words that
    are no expression, and `/* … */`."""
    kept: list[Token] = []
    brackets, at = 0, 0
    while at < len(tokens):
        token = tokens[at]
        brackets = 0 if token.type in ("LBRACE", "RBRACE") else brackets + (token.type in OPENERS)
        brackets -= token.type in OPENERS.values()
        end = at
        if token.type == "SLASHES" and ((token.first and brackets <= 0) or _prose(tokens, at + 1, token.line)):
            while tokens[end].type != END and tokens[end].line == token.line:
                end += 1
        elif _touch(tokens, at, "SLASH", "STAR"):
            end += 2
            while tokens[end].type != END and not (
                _touch(tokens, end - 2, "STAR", "SLASH") or "*/" in tokens[end - 1].text  # a quote takes in the rest
            ):
                end += 1
        if end == at:
            kept.append(token)
            at += 1
            continue
        place = Place(token.start, tokens[at + 1].end if token.type == "SLASH" else token.end)
        edit = report.edit(place, "#") if token.type == "SLASHES" else None
        report.error("B001", "a comment begins with `#`", place, note="write `#`", edit=edit)
        at = end
    return kept


def _prose(tokens: list[Token], at: int, line: int) -> bool:
    return [token.type for token in tokens[at : at + 2] if token.line == line] == ["NAME", "NAME"]


def _touch(tokens: list[Token], at: int, first: str, second: str) -> bool:
    """Two signs without a gap."""
    token, after = tokens[at], tokens[min(at + 1, len(tokens) - 1)]
    return (token.type, after.type, token.end) == (first, second, after.start)


def _broken_words(tokens: list[Token], report: Report) -> list[Token]:
    kept: list[Token] = []
    foreign_end = -1
    for at, token in enumerate(tokens):
        if kept and token.start < kept[-1].end:
            continue  # a part of the quoted text before it
        match token.type:
            case "STRING" if _quotes_within(tokens, at):
                token = replace(token, type="BAD_STRING", end=_end_of_quotes(tokens, at))
                help_ = "quote with ' inside `${ }`"
                report.error("B009", "`${ }` holds no double quote", token, help=help_)
            case "BAD_NUMBER":
                at, message, note, right = literals.explain_bad_number(token.text)
                place = Place(token.start + at, token.end)
                edit = report.edit(token, right) if right else None
                report.error("B002", message, place, note=note, help=literals.UNIT_HELP if right else "", edit=edit)
            case "BAD_STRING":
                report.error("B003", "unterminated text", token, note=f"no closing `{token.text[0]}` on this line")
                kept.append(token)
                kept.extend(_swallowed(token, kept))
                continue
            case "BAD_TRIPLE":
                quotes = token.text[: len(token.text) - len(token.text.lstrip(token.text[0]))]
                place = Place(token.start, token.start + len(quotes))
                report.error("B003", "unterminated text", place, note=f"no closing `{quotes}`")
            case "BAD_CHAR":
                if foreign_end != token.start:
                    _report_character(token, report)
                if token.text.isalnum():
                    foreign_end = token.end
                    token = replace(token, type="NAME", text="_")
        if token.type == "NAME" and kept and kept[-1].type == "NAME" and kept[-1].end == token.start:
            kept[-1] = replace(kept[-1], text=kept[-1].text + token.text, end=token.end)
            foreign_end = token.end
            continue
        kept.append(token)
    return kept


def _quotes_within(tokens: list[Token], at: int) -> bool:
    """`"${"x"}"`: the text ends inside of a `${`, and goes on without a gap."""
    token, after = tokens[at], tokens[at + 1]
    return token.text.rfind("${") > token.text.rfind("}") and after.start == token.end and after.type != END


def _end_of_quotes(tokens: list[Token], at: int) -> int:
    """Where what was meant as one text ends: behind the last word that touches it, by quotes or by itself."""
    line, end = tokens[at].line, tokens[at].end
    for token in tokens[at + 1 :]:
        if token.line != line or token.type == END or token.start != end:
            break
        end = token.end
    return end


def _swallowed(token: Token, before: list[Token]) -> list[Token]:
    """The brackets and braces at the end of a line that an unterminated text took with it."""
    text = token.text.split("#")[0].rstrip()
    line = [other.type for other in before[-MAX_LINE:] if other.line == token.line]
    found: list[Token] = []
    if text.endswith("{"):
        return [stand_in("LBRACE", token.end, token.line)]
    if text.endswith("}") and line.count("LBRACE") > line.count("RBRACE"):
        found.append(stand_in("RBRACE", token.end, token.line))
        text = text[:-1].rstrip()
    for sign, opener in (("]", "LSQB"), (")", "LPAR")):
        if text.endswith(sign) and line.count(opener) > line.count(OPENERS[opener]):
            found.insert(0, stand_in(OPENERS[opener], token.end, token.line))
            break
    return found


def _report_character(token: Token, report: Report) -> None:
    shown = token.text if token.text.isprintable() else f"U+{ord(token.text):04X}"
    names = "names are made of the letters a to z and A to Z, digits and `_`"
    help_ = names if token.text.isalnum() else _CHARACTER_HELP.get(token.text, "")
    if token.text.isspace():
        help_ = "it looks like a space and is none: type one in its place"
    report.error("B004", f"unexpected character `{shown}`", token, help=help_)


def _split_units(tokens: list[Token], report: Report) -> list[Token]:
    """`timeout = 5 m`: the unit stands apart from its number."""
    kept: list[Token] = []
    skip = False
    last = len(tokens) - 1
    for at, number in enumerate(tokens):
        if skip:
            skip = False
            continue
        unit, after = tokens[min(at + 1, last)], tokens[min(at + 2, last)]
        apart = (
            number.type in ("INT", "FLOAT")
            and unit.type == "NAME"
            and unit.line == number.line
            and unit.text in _UNITS
            and (after.line != unit.line or after.type in ("RBRACE", "COMMA", "RSQB", END, "DOTDOT"))
        )
        if not apart:
            kept.append(number)
            continue
        right = number.text + literals.MEANT.get(unit.text, unit.text)
        place = Place(number.start, unit.end)
        message = f"`{number.text} {unit.text}` is no value"
        report.error("B002", message, place, note=f"write `{right}`", edit=report.edit(place, right))
        kept.append(replace(number, type="BAD_NUMBER", end=unit.end))
        skip = True
    return kept


# ---- lines


def _lines(tokens: list[Token], report: Report) -> list[Token]:
    """Values that are missing after `=` or stand on another line, and lines that are only a name, or lack their `=`."""
    kept: list[Token] = []
    brackets = 0
    for at, token in enumerate(tokens):
        before = kept[-1] if kept else None
        brackets += (token.type in OPENERS) - (token.type in OPENERS.values())
        if token.type in ("LBRACE", "RBRACE"):
            brackets = 0
        kept.append(token)
        if token.type == END:
            break
        after = tokens[at + 1]
        misses = after.line != token.line or after.type in ("RBRACE", END)
        if before is not None and _stray(before, token, after, brackets):
            kept[-1] = replace(token, type="MISFIT")
        begins = len(kept) < 3 or kept[-3].line != token.line or kept[-3].type not in ("NAME", "EQUAL")
        if token.type == "EQUAL" and misses and before is not None and before.type in ("NAME", "RSQB") and begins:
            kept.extend(_missing_value(tokens, at, report))
        elif token.type == "NAME" and token.first and brackets <= 0 and (before is None or before.type in ENDS_ITEM):
            kept.extend(_half_item(tokens, at, report))
    return kept


def _stray(before: Token, token: Token, after: Token, brackets: int) -> bool:
    """What the grammar would take for the start of an arm or for the rest of a call, and nobody means so."""
    if token.type == "INT" and brackets == 0 and not token.first:
        return before.line == token.line and before.type in LITERALS | {"RSQB"} and after.type not in _ARM
    return token.type in OPENERS and token.first and brackets <= 1 and before.type in ENDS_ITEM - {"LBRACE"}


def _missing_value(tokens: list[Token], at: int, report: Report) -> list[Token]:
    equal, after = tokens[at], tokens[at + 1]
    place = Place(equal.end, equal.end)
    follows = after.type in LITERALS | {"NAME", "LSQB", "LPAR", "MINUS", "NOT"} and not looks_like_item(tokens, at + 1)
    if follows and after.line == equal.line + 1:
        report.error("B010", "a value begins on the line of its `=`", after, note="move it up to the `=`")
        return []
    report.error("B010", "a value is missing after `=`", place, note="expected a value")
    return [stand_in("BAD_NUMBER", equal.end, equal.line)]


def _half_item(tokens: list[Token], at: int, report: Report) -> list[Token]:
    """What the line of an item that is only a name, or a name and a value, lacks."""
    name = tokens[at]
    end = at + 1
    while tokens[end].line == name.line and tokens[end].type != END:
        if tokens[end].type in _GOES_ON:
            return []
        end += 1
    if tokens[end].type in _GOES_ON or tokens[end].type == "RPAR":
        return []
    second = tokens[at + 1]
    if second.line != name.line or second.type == END:
        place = Place(name.end, name.end)
        report.error(
            "B012", f"`{name.text}` has no value", name, note=f"write `{name.text} = …` or `{name.text} {{ … }}`"
        )
        return [stand_in("EQUAL", place.start, name.line), stand_in("BAD_NUMBER", place.start, name.line)]
    two_names = second.type == "NAME" and end == at + 2 and tokens[end].type == "NAME"
    if second.type in LITERALS - BROKEN or second.type in ("LSQB", "MINUS") or two_names:
        place = Place(second.start, second.start)
        report.error("B012", "missing `=`", second, note="write `=` before this", edit=report.edit(place, "= "))
        return [stand_in("EQUAL", name.end, name.line)]
    return []

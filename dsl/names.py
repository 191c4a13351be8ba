"""Params and lets: declared anywhere at the top of a file, and evaluated in its order; those that are named above their
declaration when they are asked for."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Final

from dsl import ast, literals
from dsl.blocks import Reader
from dsl.diagnostics import Report
from dsl.expressions import Evaluator
from dsl.schema import PARAM_TYPES, RESERVED
from dsl.values import NO_TEXT, WORDS, Type, Value, show, text, type_of
from dsl.worth import Constant, Scope, Unknown, Worth, describe
from wire.bounds import MAX_ARGUMENT_BYTES, MAX_INT
from wire.near import did_you_mean

_SCALARS: Final = {
    "string": Type.STRING, "int": Type.INT, "float": Type.FLOAT, "bool": Type.BOOL, "date": Type.DATE,
    "duration": Type.DURATION, "size": Type.SIZE, "list": Type.LIST,
}  # fmt: skip


MAX_AHEAD: Final = 150
"""How deep names may lead to names that are declared below them: each step is as deep as its expression."""


class BadValue(ValueError):
    """A text is no value of the type; the message says why."""


class Names:
    """The params and lets of a file. `given` are the values of `--param`; None: nobody gave any, and none is missed."""

    def __init__(
        self, file: ast.File, given: dict[str, str] | None, report: Report, reader: Reader, evaluator: Evaluator,
        parse_value: Callable[[str], ast.Expr | None],
    ) -> None:  # fmt: skip
        self._report = report
        self._evaluator = evaluator
        self._given = given
        self._parse_value = parse_value
        self._file = file
        self.params: dict[str, ast.Param] = {}
        self.lets: dict[str, ast.Let] = {}
        self._worth: dict[str, Worth] = {}
        self._open: list[str] = []
        self._ahead = 0
        """The depths of the expressions that are open, all together."""
        self.scope = Scope({}, lenient=file.undeclared, lost=file.lost)
        self._declare(file, reader)
        self.scope.names = {name: partial(self.worth, name) for name in (*self.params, *self.lets)}

    def declared(self, name: str) -> ast.Node | None:
        """Where a param or let of this name is declared."""
        return self.params.get(name) or self.lets.get(name)

    def worth(self, name: str) -> Worth:
        """The value of a param or let."""
        if name in self._worth:
            return self._worth[name]
        if name in self._open:
            self._cycle(name)
            return Unknown()
        if self._ahead > MAX_AHEAD:
            self._too_far(name)
            return Unknown()
        depth = 1 + self._depth(name)
        self._open.append(name)
        self._ahead += depth
        try:
            found = self._param(self.params[name]) if name in self.params else self._let(self.lets[name])
        finally:
            self._open.pop()
            self._ahead -= depth
        self._worth[name] = found
        return found

    def evaluate_all(self) -> None:
        """Evaluate all, what nobody asks for too, so that its mistakes are found. In the order of the file, so that
        what names only what stands above it goes no deeper than itself, however long the chain."""
        declared: dict[str, ast.Param | ast.Let] = {**self.params, **self.lets}
        for name in sorted(declared, key=lambda name: declared[name].start):
            self.worth(name)
        self._unknown_given()

    def texts(self) -> dict[str, str]:
        """Params as commands see them; what is null is left out."""
        known = {name: self.worth(name) for name in self.params}
        return {
            name: text(worth.value)
            for name, worth in known.items()
            if isinstance(worth, Constant) and worth.value is not None
        }

    def lets_in(self, script: str) -> dict[str, str]:
        """The lets that a script names, as its environment shows them."""
        found: dict[str, str] = {}
        words = set(re.findall(r"[a-z][a-z0-9_]*", script)) if self.lets else set()
        for name in sorted(words & self.lets.keys()):
            worth = self.worth(name)
            self.scope.used.add(name)
            if isinstance(worth, Constant) and worth.value is not None and worth.type not in NO_TEXT:
                found[name] = text(worth.value)
        return found

    def params_in(self, script: str) -> dict[str, str]:
        """The params that a script names, as its environment shows them."""
        words = set(re.findall(r"[a-z][a-z0-9_]*", script)) if self.params else set()
        return {name: shown for name, shown in self.texts().items() if name in words}

    # ---- declaring

    def _declare(self, file: ast.File, reader: Reader) -> None:
        for item in file.items:
            if not isinstance(item, ast.Param | ast.Let):
                continue
            kind = "param" if isinstance(item, ast.Param) else "let"
            if isinstance(item, ast.Param) and item.secret:
                message = f"`secret` is reserved for a later version of the language ({RESERVED['secret']})"
                self._report.error("B115", message, item)
            before = self.declared(item.name.text)
            if before is not None:
                related = self._report.related(before, "first declared here")
                self._report.error("B111", f"`{item.name.text}` is declared twice", item.name, related=related)
                continue
            reader.name(item.name, kind)
            if isinstance(item, ast.Param):
                self.params[item.name.text] = item
            else:
                self.lets[item.name.text] = item

    def _unknown_given(self) -> None:
        for name in self._given or {}:
            if name not in self.params and name not in self._file.lost:
                note = did_you_mean(name, self.params)
                declared = ", ".join(self.params) if self.params else "none"
                help_ = note or f"params of this file: {declared}"
                self._report.error("B203", f"`--param {name}` sets no param of this file", None, help=help_)

    def _cycle(self, name: str) -> None:
        around = [*self._open[self._open.index(name) :], name]
        place = self.declared(around[0])
        message = f"`{name}` depends on itself: {' → '.join(around)}"
        if place is not None:
            self._report.error("B301", message, place)

    def _depth(self, name: str) -> int:
        if name in self.lets:
            return self.lets[name].value.depth
        param = self.params[name]
        return max((part.depth for part in (param.default, param.among) if part is not None), default=0)

    def _too_far(self, name: str) -> None:
        place = self.declared(self._open[0])
        if place is not None:
            message = f"`{self._open[0]}` leads to `{name}`, declared below it, through {len(self._open)} names"
            self._report.error("B017", message, place, help="declare each above those that name it")

    # ---- evaluating

    def _let(self, let: ast.Let) -> Worth:
        worth = self._evaluator.evaluate(let.value, self.scope)
        self._fits(let.name.text, worth, let.value)
        return worth

    def _param(self, param: ast.Param) -> Worth:
        known = self._known_type(param.type)
        kind = _SCALARS[param.type.name] if known else None
        among = self._among(param)
        name = param.name.text
        worth: Worth = Unknown(kind)
        place = param.default or param
        if self._given is not None and name in self._given:
            place = param
            if known:
                worth = self._from_text(param, self._given[name])
        elif param.default is not None:
            worth = self._default(param, known)
        elif self._given is not None:
            note = f"write `--param {name}=…`"
            self._report.error("B203", f"param `{name}` has no value", param, note=note)
        if among is not None and isinstance(worth, Constant):
            self._one_of(param, worth.value, among, place)
        self._fits(name, worth, place)
        return worth

    def _known_type(self, kind: ast.TypeName) -> bool:
        if kind.name not in PARAM_TYPES:
            note = did_you_mean(kind.name, PARAM_TYPES)
            help_ = f"types: {', '.join(PARAM_TYPES[:-1])}, list[…]"
            self._report.error("B110", f"unknown type `{kind.name}`", kind, note=note, help=help_)
            return False
        if kind.name == "list" and len(kind.arguments) != 1:
            self._report.error("B110", "a list says of what", kind, note="write `list[string]`")
            return False
        if kind.name != "list" and kind.arguments:
            self._report.error("B110", f"`{kind.name}` takes no type in brackets", kind)
            return False
        return all(self._known_type(inner) for inner in kind.arguments)

    def _among(self, param: ast.Param) -> list[Value] | range | None:
        if param.among is None:
            return None
        worth = self._evaluator.evaluate(param.among, self.scope)
        if isinstance(worth, Constant) and isinstance(worth.value, list | range):
            return worth.value
        if worth.type not in (Type.LIST, Type.RANGE, None):
            message = f"after `in` stands a list or a range, found {describe(worth)}"
            self._report.error("B201", message, param.among)
        return None

    def _default(self, param: ast.Param, known: bool) -> Worth:
        assert param.default is not None
        worth = self._evaluator.evaluate(param.default, self.scope)
        if not known or not isinstance(worth, Constant) or worth.value is None:
            return worth
        try:
            return Constant(_as_type(param.type, worth.value))
        except BadValue:
            message = f"param `{param.name.text}` is {_type_words(param.type)}, found {describe(worth)}"
            self._report.error("B201", message, param.default)
            return Unknown(_SCALARS[param.type.name])

    def _from_text(self, param: ast.Param, given: str) -> Worth:
        try:
            return Constant(self._read(param.type, given))
        except BadValue as error:
            message = f"`--param {param.name.text}={given[:60]}`: {error}"
            self._report.error("B203", message, param, note=f"declared as {_type_text(param.type)} here")
            return Unknown(_SCALARS[param.type.name])

    def _read(self, kind: ast.TypeName, given: str) -> Value:
        """The value of a type that a text on the command line stands for. Raises BadValue."""
        if any("\ud800" <= letter <= "\udfff" for letter in given) or "\0" in given:
            raise BadValue("it is no text in UTF-8")
        if kind.name == "string":
            return given
        if kind.name == "list":
            return self._read_list(kind, given)
        return read_scalar(kind.name, given.strip())

    def _read_list(self, kind: ast.TypeName, given: str) -> Value:
        """`[…]` as in a file, or texts with commas between."""
        stripped = given.strip()
        if not stripped.startswith("["):
            return [self._read(kind.arguments[0], part) for part in stripped.split(",")] if stripped else []
        inner = Report(self._report.file)
        node = self._parse_value(stripped)
        worth = Evaluator(inner, lambda *_: None, lambda *_: None).evaluate(node, Scope({})) if node else Unknown()
        if inner.found or not isinstance(worth, Constant):
            raise BadValue("write a list as in a file, or values with commas between")
        return _as_type(kind, worth.value)

    def _one_of(self, param: ast.Param, value: Value, among: list[Value] | range, place: ast.Node) -> None:
        values = value if isinstance(value, list) else [value]
        for item in values:
            if item is not None and item not in among:
                message = f"param `{param.name.text}` is one of {show(among)}, found {show(item)}"
                code = "B202" if place is not param else "B203"
                self._report.error(code, message, place)
                return

    def _fits(self, name: str, worth: Worth, place: ast.Node) -> None:
        if isinstance(worth, Constant) and worth.type not in NO_TEXT:
            too_long(self._report, text(worth.value), place, name)


def too_long(report: Report, value: str, place: ast.Node, name: str = "") -> bool:
    """Report a text that no command can be given; whether it was."""
    size = len(value.encode("utf-8", "replace")) + (len(name) + 1 if name else 0)
    what = f"`{name}`" if name else "an argument"
    if size > MAX_ARGUMENT_BYTES:
        help_ = "put it into a file, and give the command its path"
        message = f"{what} is {size} bytes long: at most {MAX_ARGUMENT_BYTES} reach a command"
        report.error("B211", message, place, help=help_)
        return True
    if "\0" in value:
        report.error("B211", f"{what} holds a NUL character, which no command can be given", place)
        return True
    return False


_INT: Final = re.compile(r"[+-]?[0-9][0-9_]*\Z", re.ASCII)
_FLOAT: Final = re.compile(r"[+-]?[0-9][0-9_]*(\.[0-9]+)?([eE][+-]?[0-9]+)?\Z")
_DURATION: Final = re.compile(r"[0-9]+(\.[0-9]+)?(ms|s|m|h|d)([0-9]+(ms|s|m|h))*\Z")
_SIZE: Final = re.compile(r"[0-9]+(\.[0-9]+)?(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)\Z")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
_EXAMPLE: Final = {
    "int": "17", "float": "0.5", "bool": "true or false", "date": "2026-11-22", "duration": "5s, 30m, 1h30m",
    "size": "512MiB, 4GiB",
}  # fmt: skip


def read_scalar(kind: str, given: str) -> Value:
    """The value that a text stands for. Raises BadValue."""
    try:
        match kind:
            case "int" if _INT.match(given):
                number = literals.integer(given.lstrip("+-"))
                return -number if given.startswith("-") else number
            case "float" if _FLOAT.match(given):
                return literals.decimal(given)
            case "bool" if given in ("true", "false"):
                return given == "true"
            case "date" if _DATE.match(given):
                return literals.date(given)
            case "duration" if _DURATION.match(given):
                return literals.duration(given)
            case "size" if _SIZE.match(given):
                return literals.size(given)
    except literals.LiteralError as error:
        raise BadValue(str(error)) from None
    raise BadValue(f"that is no {kind} ({_EXAMPLE.get(kind, '…')})")


def _as_type(kind: ast.TypeName, value: Value) -> Value:
    """The value as the declared type has it: an int may stand for a float. Raises BadValue."""
    if kind.name == "list":
        if not isinstance(value, list):
            raise BadValue(f"that is no {_type_text(kind)}")
        return [_as_type(kind.arguments[0], item) for item in value]
    found = type_of(value)
    if kind.name == "float" and found is Type.INT and isinstance(value, int) and abs(value) <= MAX_INT:
        return float(value)
    if found is not _SCALARS[kind.name]:
        raise BadValue(f"that is no {kind.name}")
    return value


def _type_text(kind: ast.TypeName) -> str:
    return f"{kind.name}[{_type_text(kind.arguments[0])}]" if kind.arguments else kind.name


def _type_words(kind: ast.TypeName) -> str:
    return f"a {_type_text(kind)}" if kind.arguments else WORDS[_SCALARS[kind.name]]

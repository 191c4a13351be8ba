"""Makes the nodes: one method for each rule of the grammar, called by the parser as it reduces.

`Tree` gets all tokens of a rule as children, so the first and the last child give a node its place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from dsl import ast, literals
from dsl.diagnostics import Report
from dsl.tokens import Token
from dsl.values import Value

MAX_DEPTH: Final = 50
"""Of an expression. Beyond, it is refused where it is built; a template of the wire may be a little deeper."""

Children = list[Any]
ParsePlaceholder = Callable[[literals.Hole], ast.Placeholder]

_CONSTANTS: Final[dict[str, Value]] = {"true": True, "false": False, "null": None}


class Arguments(ast.Node):
    """What stands between the parentheses of a call, on its way to the call."""

    __slots__ = ("items",)

    def __init__(self, start: int, end: int, items: list[Any]) -> None:
        super().__init__(start, end)
        self.items = items

    @property
    def positional(self) -> list[ast.Expr]:
        return [item for item in self.items if isinstance(item, ast.Expr)]

    @property
    def keywords(self) -> list[ast.Keyword]:
        return [item for item in self.items if isinstance(item, ast.Keyword)]


class Tree:
    """The callbacks. Mistakes inside literals are reported here, since only here their text is looked at."""

    def __init__(self) -> None:
        self.report = Report("")
        self.placeholder: ParsePlaceholder | None = None

    # ---- items

    def file(self, children: Children) -> list[ast.Item]:
        return list(children)

    def dropped(self, children: Children) -> ast.Dropped:
        (token,) = children
        return ast.Dropped(token.start, token.end, frozenset(token.text.split()))

    def import_(self, children: Children) -> ast.Import:
        path = self._quoted(children[1])
        name = _name(children[3]) if len(children) > 3 else None
        return ast.Import(children[0].start, children[-1].end, path, name)

    def param(self, children: Children) -> ast.Param:
        secret = children[0].type == "SECRET"
        rest = children[1:] if secret else children
        following = {rest[at].type: rest[at + 1] for at in range(4, len(rest) - 1, 2)}
        among, default = following.get("IN"), following.get("EQUAL")
        return ast.Param(children[0].start, children[-1].end, _name(rest[1]), rest[3], among, default, secret)

    def let(self, children: Children) -> ast.Let:
        return ast.Let(children[0].start, children[-1].end, _name(children[1]), children[3])

    def attr(self, children: Children) -> ast.Option:
        return ast.Option(children[0].start, children[-1].end, _name(children[0]), children[2])

    def block(self, children: Children) -> ast.Block:
        kind = _name(children[0])
        labels: list[ast.Name | ast.Text] = []
        axes: list[ast.Axis] = []
        damaged = False
        brace = 1
        while not (isinstance(children[brace], Token) and children[brace].type == "LBRACE"):
            part = children[brace]
            if isinstance(part, list):
                axes = part
            elif part.type == "DROPPED":
                damaged = True
            elif part.type == "NAME":
                labels.append(_name(part))
            else:
                labels.append(self._quoted(part))
            brace += 1
        header_end = children[brace - 1][-1].end if isinstance(children[brace - 1], list) else children[brace - 1].end
        items = children[brace + 1 : -1]
        return ast.Block(kind.start, children[-1].end, kind, labels, axes, items, header_end, damaged)

    def sweep(self, children: Children) -> list[ast.Axis]:
        return [child for child in children if isinstance(child, ast.Axis)]

    def axis(self, children: Children) -> ast.Axis:
        names = [_name(child) for child in children if isinstance(child, Token) and child.type == "NAME"]
        return ast.Axis(children[0].start, children[-1].end, names, len(names) > 1, children[-1])

    def arm(self, children: Children) -> ast.Arm:
        patterns = [child for child in children if isinstance(child, ast.Pattern)]
        return ast.Arm(children[0].start, children[-1].end, patterns, children[-1])

    def pattern(self, children: Children) -> ast.Pattern:
        head, start, end = children[0], children[0].start, children[-1].end
        if head.type == "INT":
            first = self._number(head, literals.integer)
            last = self._number(children[2], literals.integer) if len(children) > 2 else first
            return ast.Pattern(start, end, first=first, last=last)
        return ast.Pattern(start, end, name=head.text, argument=_name(children[2]) if len(children) > 2 else None)

    def action(self, children: Children) -> ast.Action:
        given = _arguments(children)
        return ast.Action(children[0].start, children[-1].end, _name(children[0]), given.positional, given.keywords)

    def type(self, children: Children) -> ast.TypeName:
        inner = [child for child in children if isinstance(child, ast.TypeName)]
        made = ast.TypeName(children[0].start, children[-1].end, children[0].text, inner, depth=_height(inner))
        if made.depth > MAX_DEPTH:
            self._too_deep(made)
            made = ast.TypeName(made.start, made.end, "string", [])
        return made

    # ---- expressions

    def interpolation(self, children: Children) -> ast.Placeholder:
        width = None
        if len(children) > 1:
            number = children[2]
            width = int(number.text) if number.text.isdecimal() and len(number.text) < 4 else 0
            if not number.text.startswith("0") or not 0 < width <= 64:
                self.report.error(
                    "B009", f"`:{number.text}` is no width", number,
                    help="write `:05` to fill an int with zeros up to five digits (at most `:064`)",
                )  # fmt: skip
                width = None
        return ast.Placeholder(children[0].start, children[-1].end, children[0], width)

    def condition(self, children: Children) -> ast.Expr:
        then, _, test, _, otherwise = children
        return self._deep(ast.Condition(then.start, otherwise.end, test, then, otherwise), [then, test, otherwise])

    def binary(self, children: Children) -> ast.Expr:
        left, operator, right = children
        return self._deep(ast.Binary(left.start, right.end, operator.text, left, right), [left, right])

    def not_in(self, children: Children) -> ast.Expr:
        left, _, _, right = children
        return self._deep(ast.Binary(left.start, right.end, "not in", left, right), [left, right])

    def unary(self, children: Children) -> ast.Expr:
        operator, operand = children
        return self._deep(ast.Unary(operator.start, operand.end, operator.text, operand), [operand])

    def range(self, children: Children) -> ast.Expr:
        first, last = children[0], children[2]
        step = children[4] if len(children) > 4 else None
        parts = [first, last, step] if step else [first, last]
        return self._deep(ast.Range(first.start, children[-1].end, first, last, step), parts)

    def get(self, children: Children) -> ast.Expr:
        target, _, name = children
        return self._deep(ast.Get(target.start, name.end, target, name.text), [target])

    def index(self, children: Children) -> ast.Expr:
        target, positions = children[0], [child for child in children[1:] if isinstance(child, ast.Expr)]
        return self._deep(ast.Index(target.start, children[-1].end, target, positions), [target, *positions])

    def call(self, children: Children) -> ast.Expr:
        target, given = children[0], _arguments(children)
        node = ast.Call(target.start, children[-1].end, target, given.positional, given.keywords)
        return self._deep(node, [target, *given.positional, *(keyword.value for keyword in given.keywords)])

    def arguments(self, children: Children) -> Arguments:
        items = [child for child in children if not isinstance(child, Token)]
        return Arguments(children[0].start, children[-1].end, items)

    def keyword(self, children: Children) -> ast.Keyword:
        name, _, value = children
        return ast.Keyword(name.start, value.end, name.text, value, depth=value.depth)

    def list_(self, children: Children) -> ast.Expr:
        items = [child for child in children if not isinstance(child, Token)]
        return self._deep(ast.ListOf(children[0].start, children[-1].end, items), items)

    def paren(self, children: Children) -> ast.Expr:
        inner: ast.Expr = children[1]
        inner.start, inner.end = children[0].start, children[2].end
        return self._deep(inner, [inner])

    # ---- atoms

    def ref(self, children: Children) -> ast.Expr:
        (token,) = children
        return ast.Ref(token.start, token.end, token.text)

    def constant(self, children: Children) -> ast.Expr:
        (token,) = children
        return ast.Literal(token.start, token.end, _CONSTANTS[token.text])

    def int_(self, children: Children) -> ast.Expr:
        return self._literal(children[0], literals.integer)

    def float_(self, children: Children) -> ast.Expr:
        return self._literal(children[0], literals.decimal)

    def duration(self, children: Children) -> ast.Expr:
        return self._literal(children[0], literals.duration)

    def size(self, children: Children) -> ast.Expr:
        return self._literal(children[0], literals.size)

    def date(self, children: Children) -> ast.Expr:
        return self._literal(children[0], literals.date)

    def broken(self, children: Children) -> ast.Expr:
        (token,) = children
        return ast.Broken(token.start, token.end)

    def string(self, children: Children) -> ast.Expr:
        return self._quoted(children[0])

    raw = triple = rawtriple = string

    # ---- how

    def _quoted(self, token: Token) -> ast.Text:
        tripled = token.type in ("TRIPLE", "RAWTRIPLE")
        quotes = len(token.text) - len(token.text.lstrip(token.text[0])) if tripled else 1
        body = literals.Body(token.text[quotes:-quotes], token.start + quotes, tripled)
        if token.type in ("RAW", "RAWTRIPLE"):
            return ast.Text(token.start, token.end, [body.text], raw=True, tripled=tripled)
        parts: list[str | ast.Placeholder] = []
        for piece in literals.pieces(body):
            match piece:
                case literals.BadText():
                    self.report.error(piece.code, piece.message, piece, help=piece.help)
                case literals.Hole():
                    assert self.placeholder is not None
                    parts.append(self.placeholder(piece))
                case _ if parts and isinstance(parts[-1], str):
                    parts[-1] += piece
                case _ if piece:
                    parts.append(piece)
        depth = max((1 + part.depth for part in parts if isinstance(part, ast.Placeholder)), default=0)
        return ast.Text(token.start, token.end, parts, raw=False, tripled=tripled, depth=depth)

    def _literal(self, token: Token, read: Callable[[str], Value]) -> ast.Expr:
        try:
            return ast.Literal(token.start, token.end, read(token.text))
        except literals.LiteralError as error:
            self.report.error("B020", str(error), token)
            return ast.Broken(token.start, token.end)

    def _number(self, token: Token, read: Callable[[str], int]) -> int:
        try:
            return read(token.text)
        except literals.LiteralError as error:
            self.report.error("B020", str(error), token)
            return 0

    def _deep(self, node: ast.Expr, parts: list[Any]) -> ast.Expr:
        node.depth = _height(parts)
        if node.depth <= MAX_DEPTH:
            return node
        self._too_deep(node)
        return ast.Broken(node.start, node.end)

    def _too_deep(self, node: ast.Node) -> None:
        self.report.error("B017", f"this is nested more than {MAX_DEPTH} deep", node)


def _height(parts: list[Any]) -> int:
    return 1 + max((part.depth for part in parts), default=0)


def _name(token: Token) -> ast.Name:
    return ast.Name(token.start, token.end, token.text)


def _arguments(children: Children) -> Arguments:
    for child in children:
        if isinstance(child, Arguments):
            return child
    return Arguments(0, 0, [])

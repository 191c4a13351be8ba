"""The tree of a `.batch` file: plain nodes with character offsets, made directly by the parser.

`depth` is the height of the tree below a node: expressions deeper than a limit are refused when they are built, so
everything that walks them may recurse.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dsl.values import Value


@dataclass(slots=True, eq=False, repr=False)
class Node:
    """A piece of the source."""

    start: int
    end: int
    depth: int = field(default=0, kw_only=True)


# ---- expressions


@dataclass(slots=True, eq=False, repr=False)
class Expr(Node):
    """Base of what has a value."""


@dataclass(slots=True, eq=False, repr=False)
class Broken(Expr):
    """Stands where a mistake was already reported; whatever is made of it reports nothing more."""


@dataclass(slots=True, eq=False, repr=False)
class Literal(Expr):
    """A number, a date, `true`, `false` or `null`."""

    value: Value


@dataclass(slots=True, eq=False, repr=False)
class Placeholder(Node):
    """`${expr}` or `${expr:05}` in a text; offsets include the braces."""

    expr: Expr
    width: int | None


@dataclass(slots=True, eq=False, repr=False)
class Text(Expr):
    """A quoted text. `raw` has one part and no placeholder; `tripled` text is dedented already."""

    parts: list[str | Placeholder]
    raw: bool
    tripled: bool

    @property
    def interpolates(self) -> bool:
        return any(isinstance(part, Placeholder) for part in self.parts)


@dataclass(slots=True, eq=False, repr=False)
class Ref(Expr):
    """A bare name."""

    name: str


@dataclass(slots=True, eq=False, repr=False)
class Get(Expr):
    """`target.name`."""

    target: Expr
    name: str


@dataclass(slots=True, eq=False, repr=False)
class Index(Expr):
    """`target[a, b]`; more than one position has a meaning in `after` only."""

    target: Expr
    positions: list[Expr]


@dataclass(slots=True, eq=False, repr=False)
class Keyword(Node):
    """`times = 1` in a call."""

    name: str
    value: Expr


@dataclass(slots=True, eq=False, repr=False)
class Call(Expr):
    """`name(a, key = b)`."""

    target: Expr
    arguments: list[Expr]
    keywords: list[Keyword]


@dataclass(slots=True, eq=False, repr=False)
class Unary(Expr):
    """`-x`, `not x`."""

    operator: str
    operand: Expr


@dataclass(slots=True, eq=False, repr=False)
class Binary(Expr):
    """`x + y`, `x in y`, `x and y`."""

    operator: str
    left: Expr
    right: Expr


@dataclass(slots=True, eq=False, repr=False)
class Condition(Expr):
    """`then if test else otherwise`."""

    test: Expr
    then: Expr
    otherwise: Expr


@dataclass(slots=True, eq=False, repr=False)
class Range(Expr):
    """`first..last by step`."""

    first: Expr
    last: Expr
    step: Expr | None


@dataclass(slots=True, eq=False, repr=False)
class ListOf(Expr):
    """`[a, b]`."""

    items: list[Expr]


# ---- items


@dataclass(slots=True, eq=False, repr=False)
class Name(Node):
    """A bare word in the place of a name."""

    text: str


@dataclass(slots=True, eq=False, repr=False)
class Item(Node):
    """Base of what stands in a file or between the braces of a block."""


@dataclass(slots=True, eq=False, repr=False)
class Dropped(Item):
    """What recovery left out here. Nothing about a missing item is reported beside it."""

    words: frozenset[str] = frozenset()


@dataclass(slots=True, eq=False, repr=False)
class Option(Item):
    """`name = value`."""

    name: Name
    value: Expr


@dataclass(slots=True, eq=False, repr=False)
class Axis(Node):
    """`desk in desks` or `(os, py) in rows`."""

    names: list[Name]
    zipped: bool
    values: Expr


@dataclass(slots=True, eq=False, repr=False)
class Block(Item):
    """`kind label for … { … }`."""

    kind: Name
    labels: list[Name | Text]
    axes: list[Axis]
    items: list[Item]
    header_end: int
    damaged: bool
    """Recovery dropped a part of the header."""

    @property
    def header(self) -> Name:
        return Name(self.start, self.header_end, self.kind.text)

    @property
    def incomplete(self) -> bool:
        """Whether recovery dropped something between the braces."""
        return any(isinstance(item, Dropped) for item in self.items)


@dataclass(slots=True, eq=False, repr=False)
class Pattern(Node):
    """`75`, `130..139`, `signal(SEGV)`, `timeout`, `else`."""

    name: str = ""
    argument: Name | None = None
    first: int | None = None
    last: int | None = None


@dataclass(slots=True, eq=False, repr=False)
class Action(Node):
    """What an arm does: `fail`, `retry(times = 1)`."""

    name: Name
    arguments: list[Expr]
    keywords: list[Keyword]


@dataclass(slots=True, eq=False, repr=False)
class Arm(Item):
    """`75, 137 => retry`."""

    patterns: list[Pattern]
    action: Action


@dataclass(slots=True, eq=False, repr=False)
class TypeName(Node):
    """`int`, `list[string]`."""

    name: str
    arguments: list[TypeName]


@dataclass(slots=True, eq=False, repr=False)
class Param(Item):
    """`param name: type in among = default`."""

    name: Name
    type: TypeName
    among: Expr | None
    default: Expr | None
    secret: bool


@dataclass(slots=True, eq=False, repr=False)
class Let(Item):
    """`let name = value`."""

    name: Name
    value: Expr


@dataclass(slots=True, eq=False, repr=False)
class Import(Item):
    """`import "path" as name`."""

    path: Expr
    name: Name | None


@dataclass(slots=True, eq=False, repr=False)
class Comment(Node):
    """`# …`, up to the end of its line."""

    text: str


@dataclass(slots=True, eq=False, repr=False)
class File:
    """A whole source. `lost` are the words in the text that recovery dropped: a name among them may have been declared
    there, so it is never reported as unknown."""

    items: list[Item]
    comments: list[Comment]
    lost: frozenset[str]
    spoilt: frozenset[int]
    """The lines with mistakes of syntax: what else is wrong on them may be an echo."""
    undeclared: bool
    """One of these was to declare a param or a let: any unknown name may be its."""

"""What an expression is worth: a constant, a tree that the node finishes for each task, or unknown.

Evaluation is partial: what is known folds to a constant, what depends on a sweep variable, a directory or the run stays
a small plain tree (`wire.template`). Types are known for all three, so mistakes are found without any value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from dsl import ast, operators
from dsl.diagnostics import Report
from dsl.values import NO_TEXT, WORDS, Table, Type, Value, plain, text
from dsl.worth import (
    OF_TASKS,
    RUN_ROOTS,
    RUN_TYPES,
    Constant,
    Scope,
    Unknown,
    Varying,
    Worth,
    as_operand,
    element_type,
    in_range,
    join,
    why,
)
from wire.near import did_you_mean

FUNCTIONS: Final = ("len", "min", "max", "lines", "csv")
MAX_TEXT: Final = 1024 * 1024

ReadFile = Callable[[str, ast.Node], str | None]
"""The text of a file that the source names, or None when the reason was reported."""
ReadTable = Callable[[str, ast.Node], Table | None]


class Evaluator:
    """Evaluates expressions in scopes and reports what is wrong with them."""

    def __init__(self, report: Report, read_text: ReadFile, read_table: ReadTable) -> None:
        self.report = report
        self._read_text = read_text
        self._read_table = read_table

    def evaluate(self, node: ast.Expr, scope: Scope) -> Worth:
        match node:
            case ast.Literal():
                return Constant(node.value)
            case ast.Text():
                return self._text(node, scope)
            case ast.Ref():
                return self._ref(node, scope)
            case ast.Get():
                return self._get(node, scope)
            case ast.Binary():
                return self._binary(node, scope)
            case ast.Unary():
                return self._unary(node, scope)
            case ast.Condition():
                return self._condition(node, scope)
            case ast.ListOf():
                return self._list(node, scope)
            case ast.Index():
                return self._index(node, scope)
            case ast.Call():
                return self._call(node, scope)
            case ast.Range():
                return self._range(node, scope)
            case _:
                return Unknown()

    # ---- names

    def _ref(self, node: ast.Ref, scope: Scope) -> Worth:
        scope.used.add(node.name)
        if node.name in scope.names:
            return scope.names[node.name]()
        if node.name in RUN_TYPES:
            return self._run_name(node.name, node, scope)
        if node.name in scope.lost or scope.lenient:
            return Unknown()
        if node.name in RUN_ROOTS:
            names = " or ".join(f"`{name}`" for name in RUN_TYPES if name.startswith(f"{node.name}."))
            self.report.error("B110", f"`{node.name}` alone is no value", node, help=f"write {names}")
            return Unknown()
        note = did_you_mean(node.name, scope.names)
        if not note and (truth := _TRUTHS.get(node.name.lower())) is not None:
            note = f"write `{truth}`"
        help_ = "" if note else _help_of(node.name)
        self.report.error("B110", f"unknown name `{node.name}`", node, note=note, help=help_)
        return Unknown()

    def _get(self, node: ast.Get, scope: Scope) -> Worth:
        if isinstance(node.target, ast.Ref) and node.target.name not in scope.names:
            full = f"{node.target.name}.{node.name}"
            if full in RUN_TYPES:
                return self._run_name(full, node, scope)
            if node.target.name in RUN_ROOTS:
                note = did_you_mean(full, RUN_TYPES)
                help_ = f"known when it runs: {', '.join(RUN_TYPES)}"
                self.report.error("B110", f"unknown name `{full}`", node, note=note, help=help_)
                return Unknown()
        target = self.evaluate(node.target, scope)
        if not isinstance(target, Unknown) or target.type:
            self.report.error("B207", f"{WORDS[target.type or Type.STRING]} has no parts: `.{node.name}`", node)
        return Unknown()

    def _run_name(self, name: str, node: ast.Node, scope: Scope) -> Worth:
        if name in scope.run:
            return Varying(["run", name], RUN_TYPES[name], name)
        if name in OF_TASKS and scope.run:
            self.report.error("B209", f"`{name}` is known in tasks only", node)
        else:
            help_ = "names known when it runs stand in `run`, `env`, `file` and `output`"
            self.report.error("B209", f"`{name}` is known only when it runs", node, help=help_)
        return Unknown(RUN_TYPES[name])

    # ---- texts

    def _text(self, node: ast.Text, scope: Scope) -> Worth:
        parts: list[Any] = []
        unknown, because = False, ""
        for part in node.parts:
            if isinstance(part, str):
                parts.append(part)
                continue
            worth = self._placeholder(part, scope)
            match worth:
                case Constant(value=value):
                    parts.append(text(value))
                case Varying():
                    parts.append(worth.tree)
                    because = because or worth.because
                case _:
                    unknown = True
        if unknown:
            return Unknown(Type.STRING)
        joined = join(parts)
        if isinstance(joined, str):
            if len(joined) > MAX_TEXT:
                self.report.error("B208", "this text grows too long", node)
                return Unknown(Type.STRING)
            return Constant(joined)
        return Varying(joined, Type.STRING, because)

    def _placeholder(self, part: ast.Placeholder, scope: Scope) -> Worth:
        worth = self.evaluate(part.expr, scope)
        if worth.type in NO_TEXT:
            self.report.error("B207", f"{WORDS[worth.type]} has no text", part.expr)
            return Unknown(Type.STRING)
        if part.width is None:
            return worth
        if worth.type not in (Type.INT, None):
            found = WORDS[worth.type]
            self.report.error("B207", f"`:0{part.width}` fills an int with zeros, found {found}", part.expr)
            return Unknown(Type.STRING)
        match worth:
            case Constant(value=int(number)):
                return Constant(f"{number:0{part.width}d}")
            case Varying():
                return Varying(["pad", worth.tree, part.width], Type.STRING, worth.because)
            case _:
                return Unknown(Type.STRING)

    # ---- operators

    def _binary(self, node: ast.Binary, scope: Scope) -> Worth:
        left = self.evaluate(node.left, scope)
        decided = _decided(node.operator, left)
        right = self._untaken(node.right, scope) if decided else self.evaluate(node.right, scope)
        if left.type is None or right.type is None:
            return Unknown(left.type if decided else None)
        result = operators.result_type(node.operator, left.type, right.type)
        if result is None:
            help_ = _operator_help(node.operator, left.type, right.type)
            message = f"`{node.operator}` does not take {WORDS[left.type]} and {WORDS[right.type]}"
            self.report.error("B207", message, node, help=help_)
            return Unknown()
        if decided:
            return left
        match left, right:
            case Constant(), Constant():
                if node.operator in ("and", "or"):
                    return right
                return self._computed(node, lambda: operators.compute(node.operator, left.value, right.value))
            case (Unknown(), _) | (_, Unknown()):
                return Unknown(result)
        if Type.DATE in (left.type, right.type) and node.operator in ("+", "-"):
            self.report.error("B209", "days are counted before a task runs, not for each task", node)
            return Unknown(result)
        if isinstance(right, Constant) and node.operator in ("/", "//", "%") and not plain(right.value):
            self.report.error("B208", "division by zero", node.right)
            return Unknown(result)
        if isinstance(right, Constant) and isinstance(right.value, range):
            inside = in_range(as_operand(left), right.value)
            tree = inside if node.operator == "in" else ["not", inside]
            return Varying(tree, Type.BOOL, why(left))
        return Varying(["op", node.operator, as_operand(left), as_operand(right)], result, why(left, right))

    def _unary(self, node: ast.Unary, scope: Scope) -> Worth:
        operand = self.evaluate(node.operand, scope)
        if operand.type is None:
            return Unknown(Type.BOOL if node.operator == "not" else None)
        negates = node.operator == "-"
        if operand.type not in (operators.NEGATED if negates else (Type.BOOL,)):
            self.report.error("B207", f"`{node.operator}` does not take {WORDS[operand.type]}", node)
            return Unknown()
        match operand:
            case Constant(value=value):
                return self._computed(node, lambda: operators.negate(value) if negates else not value)
            case Varying():
                form = "neg" if negates else "not"
                return Varying([form, operand.tree], operand.type, operand.because)
            case _:
                return operand

    def _condition(self, node: ast.Condition, scope: Scope) -> Worth:
        test = self.evaluate(node.test, scope)
        if test.type not in (Type.BOOL, None):
            self.report.error("B207", f"`if` takes a bool, found {WORDS[test.type]}", node.test)
            test = Unknown()
        if isinstance(test, Constant):
            taken, other = (node.then, node.otherwise) if test.value else (node.otherwise, node.then)
            self._untaken(other, scope)
            return self.evaluate(taken, scope)
        then, otherwise = self.evaluate(node.then, scope), self.evaluate(node.otherwise, scope)
        kind = then.type if then.type is otherwise.type else None
        if isinstance(test, Unknown) or isinstance(then, Unknown) or isinstance(otherwise, Unknown):
            return Unknown(kind)
        return Varying(["if", test.tree, as_operand(then), as_operand(otherwise)], kind, test.because)

    def _untaken(self, node: ast.Expr, scope: Scope) -> Worth:
        """Check a branch that is not taken: its names and types count, that it has no value does not."""
        before = len(self.report.found)
        worth = self.evaluate(node, scope)
        self.report.found[before:] = [found for found in self.report.found[before:] if found.code != "B208"]
        return worth

    def _computed(self, node: ast.Expr, compute: Callable[[], Value]) -> Worth:
        try:
            value = compute()
        except operators.NoValue as error:
            self.report.error("B208", str(error), node)
            return Unknown()
        if isinstance(value, str | list) and len(value) > MAX_TEXT:
            self.report.error("B208", "this value grows too long", node)
            return Unknown()
        return Constant(value)

    # ---- lists, ranges, calls

    def _list(self, node: ast.ListOf, scope: Scope) -> Worth:
        items = [self.evaluate(item, scope) for item in node.items]
        if any(isinstance(item, Unknown) for item in items):
            return Unknown(Type.LIST)
        constants = [item.value for item in items if isinstance(item, Constant)]
        if len(constants) == len(items):
            return Constant(constants)
        return Varying(["list", *(as_operand(item) for item in items)], Type.LIST, why(*items))

    def _index(self, node: ast.Index, scope: Scope) -> Worth:
        target = self.evaluate(node.target, scope)
        if len(node.positions) != 1:
            self.report.error("B207", "a list takes one position", node)
            return Unknown()
        position = self.evaluate(node.positions[0], scope)
        if target.type not in (Type.LIST, None):
            self.report.error("B207", f"{WORDS[target.type]} has no elements to pick", node)
            return Unknown()
        if position.type not in (Type.INT, None):
            self.report.error("B207", f"a position is an int, found {WORDS[position.type]}", node.positions[0])
            return Unknown()
        match target, position:
            case Constant(value=list(items)), Constant(value=int(at)):
                if -len(items) <= at < len(items):
                    return Constant(items[at])
                self.report.error("B208", f"the list has {len(items)} elements, none at {at}", node.positions[0])
            case (Constant() | Varying(), Constant() | Varying()):
                tree = ["index", as_operand(target), as_operand(position)]
                return Varying(tree, element_type(target), why(target, position))
        return Unknown()

    def _range(self, node: ast.Range, scope: Scope) -> Worth:
        parts = [node.first, node.last, *([node.step] if node.step else [])]
        ends: list[int] = []
        for part in parts:
            worth = self.evaluate(part, scope)
            if worth.type not in (Type.INT, None):
                self.report.error("B207", f"a range goes from int to int, found {WORDS[worth.type]}", part)
                return Unknown()
            if isinstance(worth, Varying):
                message = f"a range is known before tasks run, `{worth.because}` is not"
                self.report.error("B209", message, part)
            elif isinstance(worth, Constant) and isinstance(worth.value, int):
                ends.append(worth.value)
        if len(ends) != len(parts):
            return Unknown(Type.RANGE)
        first, last, step = (*ends, 1)[:3]
        if step == 0:
            self.report.error("B208", "a range does not go on in steps of 0", parts[-1])
            return Unknown(Type.RANGE)
        return Constant(range(first, last + (1 if step > 0 else -1), step))

    def _call(self, node: ast.Call, scope: Scope) -> Worth:
        if not isinstance(node.target, ast.Ref):
            if not isinstance(node.target, ast.Broken):
                self.report.error("B210", "this can't be called", node.target)
            return Unknown()
        name = node.target.name
        given = [self.evaluate(argument, scope) for argument in node.arguments]
        for keyword in node.keywords:
            self.report.error("B210", f"`{name}` takes no argument `{keyword.name}`", keyword)
        if name not in FUNCTIONS:
            note = did_you_mean(name, FUNCTIONS)
            help_ = f"there are {', '.join(f'`{function}`' for function in FUNCTIONS)}"
            self.report.error("B210", f"unknown function `{name}`", node.target, note=note, help=help_)
            return Unknown()
        if name in ("min", "max"):
            return self._extreme(name, node, given)
        if len(given) != 1:
            self.report.error("B210", f"`{name}` takes one argument, found {len(given)}", node)
            return Unknown(Type.INT if name == "len" else None)
        return self._length(node, given[0]) if name == "len" else self._file(name, node, given[0])

    def _length(self, node: ast.Call, given: Worth) -> Worth:
        if given.type not in (*operators.MEASURED, None):
            self.report.error("B210", f"`len` does not take {WORDS[given.type]}", node.arguments[0])
            return Unknown(Type.INT)
        match given:
            case Constant(value=value):
                return Constant(operators.length(value))
            case Varying():
                return Varying(["call", "len", given.tree], Type.INT, given.because)
            case _:
                return Unknown(Type.INT)

    def _extreme(self, name: str, node: ast.Call, given: list[Worth]) -> Worth:
        if len(given) == 1 and isinstance(given[0], Constant) and isinstance(given[0].value, list | range):
            values = given[0].value
            if isinstance(values, range):
                values = [values[0], values[-1]] if values else []
            given = [Constant(value) for value in values]
            if not given:
                self.report.error("B208", f"`{name}` of nothing", node)
                return Unknown()
        elif len(given) == 1 and given[0].type in (Type.LIST, Type.RANGE, None):
            if isinstance(given[0], Varying):
                return Varying(["call", name, given[0].tree], None, given[0].because)
            return Unknown()
        elif len(given) < 2:
            self.report.error("B210", f"`{name}` takes a list, or two values and more", node)
            return Unknown()
        kinds = {worth.type for worth in given}
        if None in kinds:
            return Unknown()
        if (len(kinds) > 1 and not kinds <= {Type.INT, Type.FLOAT}) or not kinds <= set(operators.ORDERED):
            found = " and ".join(sorted(WORDS[kind] for kind in kinds if kind))
            self.report.error("B210", f"`{name}` does not compare {found}", node)
            return Unknown()
        kind = Type.FLOAT if len(kinds) > 1 else kinds.pop()
        if any(isinstance(worth, Unknown) for worth in given):
            return Unknown(kind)
        values = [worth.value for worth in given if isinstance(worth, Constant)]
        if len(values) == len(given):
            chosen: Value = (min if name == "min" else max)(values)
            return Constant(chosen)
        return Varying(["call", name, *(as_operand(worth) for worth in given)], kind, why(*given))

    def _file(self, name: str, node: ast.Call, given: Worth) -> Worth:
        kind = Type.TABLE if name == "csv" else Type.LIST
        if given.type not in (Type.STRING, None):
            self.report.error(
                "B210", f"`{name}` takes the path of a file, found {WORDS[given.type]}", node.arguments[0]
            )
        elif isinstance(given, Varying):
            message = f"a file is read before tasks run, `{given.because}` is not known then"
            self.report.error("B209", message, node.arguments[0])
        elif isinstance(given, Constant) and isinstance(given.value, str):
            if name == "csv":
                table = self._read_table(given.value, node.arguments[0])
                return Unknown(kind) if table is None else Constant(table)
            content = self._read_text(given.value, node.arguments[0])
            if content is not None:
                lines: list[Value] = list(content.removesuffix("\n").split("\n")) if content else []
                return Constant(lines)
        return Unknown(kind)


_TRUTHS: Final = {"true": "true", "yes": "true", "on": "true", "false": "false", "no": "false", "off": "false"}
"""What people write for the two; `true` itself is no name."""


def _help_of(name: str) -> str:
    if name.isupper():
        return f"`$${{{name}}}` stays `${{{name}}}`, and in single quotes every `$` stays"
    return "a text stands in quotes; names without quotes are params, lets, sweep variables or dirs"


def _decided(sign: str, left: Worth) -> bool:
    """`false and …`, `true or …`: the left side is the answer."""
    return isinstance(left, Constant) and left.value is (sign == "or") and sign in ("and", "or")


def _operator_help(sign: str, left: Type, right: Type) -> str:
    if sign == "+" and Type.STRING in (left, right):
        return 'texts are put together in double quotes: "…${name}…"'
    if sign in ("//", "%") and {left, right} <= {Type.INT, Type.FLOAT}:
        return "`//` and `%` are for ints"
    return ""

"""The value of an option, held against what the schema says it takes: one function for each kind of option."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from dsl import ast
from dsl.blocks import Setting
from dsl.diagnostics import Report
from dsl.expressions import Evaluator
from dsl.names import too_long
from dsl.schema import Kind, Option
from dsl.values import Duration, Size, Type, Value, show_duration, show_size, text, type_of
from dsl.worth import Constant, Scope, Unknown, Varying, Worth, describe, tree_of
from wire.bounds import MAX_ARGUMENTS, MAX_SCRIPT_BYTES
from wire.near import did_you_mean
from wire.signals import SIGNALS


class Missing:
    """The option has no usable value; why was reported, or it hangs on a param without one."""


MISSING: Final = Missing()
UNLIMITED: Final = "unlimited"


class Options:
    """Evaluates settings. What comes back is plain: ints in ms and bytes, words, trees of `wire.template`."""

    def __init__(self, report: Report, evaluator: Evaluator) -> None:
        self._report = report
        self._evaluator = evaluator
        self._readers: dict[Kind, Callable[[Setting, Scope], Any]] = {
            Kind.INT: self._int,
            Kind.BOOL: self._bool,
            Kind.STRING: self._string,
            Kind.DURATION: self._duration,
            Kind.SIZE: self._size,
            Kind.NUMBER: self._number,
            Kind.QUANTITY: self._quantity,
            Kind.COUNT: self._count,
            Kind.WORD: self._word,
            Kind.SIGNAL: self._signal,
            Kind.BACKOFF: self._backoff,
            Kind.ARGV: self._argv,
            Kind.SCRIPT: self._script,
            Kind.TEXTS: self._texts,
            Kind.TEXT: self._text,
            Kind.FAILURE: self._failure,
        }

    def read(self, setting: Setting, scope: Scope) -> Any:
        """The plain value, or MISSING."""
        return self._readers[setting.option.kind](setting, scope)

    # ---- constants

    def _constant(self, setting: Setting, scope: Scope, *types: Type) -> Any:
        """The value of an option that is the same for every task, of one of these types; else MISSING."""
        return self.constant(setting.node.value, f"`{setting.name}`", setting.option.kind.value, scope, *types)

    def constant(self, node: ast.Expr, who: str, takes: str, scope: Scope, *types: Type) -> Any:
        worth = self._evaluator.evaluate(node, scope)
        if worth.type is not None and worth.type not in types:
            self._report.error("B201", f"{who} takes {takes}, found {describe(worth)}", node, help=_hint(types, worth))
            return MISSING
        if isinstance(worth, Varying):
            help_ = "what differs from task to task stands in `run`, `env`, `file` and `output`"
            self._report.error("B209", f"{who} is the same for every task: `{worth.because}` is not", node, help=help_)
            return MISSING
        return worth.value if isinstance(worth, Constant) else MISSING

    def _int(self, setting: Setting, scope: Scope) -> Any:
        value = self._constant(setting, scope, Type.INT)
        return value if self._within(setting, value, str) else MISSING

    def _bool(self, setting: Setting, scope: Scope) -> Any:
        return self._constant(setting, scope, Type.BOOL)

    def _duration(self, setting: Setting, scope: Scope) -> Any:
        value = self._constant(setting, scope, Type.DURATION)
        ms = value.ms if isinstance(value, Duration) else MISSING
        return ms if self._within(setting, ms, show_duration) else MISSING

    def _size(self, setting: Setting, scope: Scope) -> Any:
        value = self._constant(setting, scope, Type.SIZE)
        count = value.bytes if isinstance(value, Size) else MISSING
        return count if self._within(setting, count, show_size) else MISSING

    def _number(self, setting: Setting, scope: Scope) -> Any:
        value = self._constant(setting, scope, Type.INT, Type.FLOAT)
        return value if self._within(setting, value, str) else MISSING

    def _quantity(self, setting: Setting, scope: Scope) -> Any:
        value = self._constant(setting, scope, Type.INT, Type.FLOAT, Type.SIZE)
        plain = value.bytes if isinstance(value, Size) else value
        return plain if self._within(setting, plain, str) else MISSING

    def _count(self, setting: Setting, scope: Scope) -> Any:
        node = setting.node.value
        if isinstance(node, ast.Ref) and node.name not in scope.names:
            if node.name == UNLIMITED:
                return None
            note = did_you_mean(node.name, [UNLIMITED, *scope.names])
            if note:
                self._report.error("B110", f"unknown name `{node.name}`", node, note=note)
                return MISSING
        return self._int(setting, scope)

    def _within(self, setting: Setting, value: Any, shown: Callable[[Any], str]) -> bool:
        option = setting.option
        if value is MISSING:
            return False
        if (option.low is None or value >= option.low) and (option.high is None or value <= option.high):
            return True
        self._report.error(
            "B202", f"`{setting.name}` is {_range_words(option, shown)}, found {shown(value)}", setting.node.value
        )
        return False

    def _texts(self, setting: Setting, scope: Scope) -> Any:
        value = self._constant(setting, scope, Type.LIST)
        if value is MISSING:
            return MISSING
        for item in value:
            if type_of(item) is not Type.STRING:
                found = describe(Constant(item))
                self._report.error("B201", f"`{setting.name}` takes a list of texts, found {found}", setting.node.value)
                return MISSING
        return value

    # ---- words

    def _word(self, setting: Setting, scope: Scope) -> Any:
        return self._one_of(setting, setting.option.words)

    def _one_of(self, setting: Setting, words: tuple[str, ...]) -> Any:
        node = setting.node.value
        if isinstance(node, ast.Broken):
            return MISSING
        said = node.name if isinstance(node, ast.Ref) else ""
        if said in words:
            return said
        if isinstance(node, ast.Text) and not node.interpolates and "".join(map(str, node.parts)) in words:
            said = "".join(map(str, node.parts))
            edit = self._report.edit(node, said)
            self._report.error(
                "B201", f"`{setting.name}` takes a bare word", node, note=f"write `{said}` without quotes", edit=edit
            )
            return said
        found = f"`{said}`" if said else "something else"
        message = f"`{setting.name}` is {' or '.join(f'`{word}`' for word in words)}, found {found}"
        self._report.error("B201", message, node, note=did_you_mean(said, words))
        return MISSING

    def _signal(self, setting: Setting, scope: Scope) -> Any:
        node = setting.node.value
        said = node.name if isinstance(node, ast.Ref) else ""
        return self.signal(node, said, setting.name)

    def signal(self, node: ast.Node, said: str, who: str) -> Any:
        """The number of a signal by its name."""
        if said in SIGNALS:
            return SIGNALS[said]
        if isinstance(node, ast.Broken):
            return MISSING
        bare = said.upper().removeprefix("SIG")
        note = f"write `{bare}`" if bare in SIGNALS else did_you_mean(said, SIGNALS)
        found = f"`{said}`" if said else "something else"
        help_ = "" if note else "for example TERM, INT, HUP, USR1, KILL"
        self._report.error("B201", f"`{who}` takes the name of a signal, found {found}", node, note=note, help=help_)
        return MISSING

    def _failure(self, setting: Setting, scope: Scope) -> Any:
        """None to continue, or after how many failed tasks the job stops."""
        node = setting.node.value
        if not isinstance(node, ast.Call):
            said = self._one_of(setting, ("continue", "stop"))
            return MISSING if said is MISSING else None if said == "continue" else 1
        if not isinstance(node.target, ast.Ref) or node.target.name != "stop":
            message = f"`{setting.name}` is {setting.option.kind.value}"
            self._report.error("B201", message, node.target)
            return MISSING
        keywords = {keyword.name: keyword for keyword in node.keywords}
        if node.arguments or set(keywords) != {"after"} or len(node.keywords) != 1:
            self._report.error("B210", "`stop` takes `after = n`", node, note="write `stop(after = 10)`")
            return MISSING
        after = ast.Option(node.start, node.end, ast.Name(node.start, node.end, "after"), keywords["after"].value)
        option = Option("after", Kind.INT, "", low=setting.option.low, high=setting.option.high)
        return self._int(Setting(option, after), scope)

    def _backoff(self, setting: Setting, scope: Scope) -> Any:
        return self.backoff(setting.node.value, setting.option, scope)

    def backoff(self, node: ast.Expr, option: Option, scope: Scope) -> Any:
        """`{"first_ms", "cap_ms"}` of `5s..2m`."""
        if isinstance(node, ast.Broken):
            return MISSING
        if not isinstance(node, ast.Range) or node.step is not None:
            note = "write the first wait and the longest: `5s..2m`"
            worth: Worth = Unknown() if isinstance(node, ast.Range) else self._evaluator.evaluate(node, scope)
            if isinstance(node, ast.Range) or worth.type is not None:
                self._report.error("B201", f"`{option.name}` takes {option.kind.value}", node, note=note)
            return MISSING
        ends: list[int] = []
        for part in (node.first, node.last):
            named = ast.Option(part.start, part.end, ast.Name(part.start, part.end, option.name), part)
            limits = Option(option.name, Kind.DURATION, "", low=option.low, high=option.high)
            ms = self._duration(Setting(limits, named), scope)
            if ms is MISSING:
                return MISSING
            ends.append(ms)
        first, cap = ends
        if first > cap:
            message = (
                f"`{option.name}` begins with {show_duration(first)}, longer than its longest, {show_duration(cap)}"
            )
            self._report.error("B202", message, node)
            return MISSING
        return {"first_ms": first, "cap_ms": cap}

    # ---- texts that commands get

    def _string(self, setting: Setting, scope: Scope) -> Any:
        if not setting.option.varies:
            return self._constant(setting, scope, Type.STRING)
        worth = self._evaluator.evaluate(setting.node.value, scope)
        if worth.type not in (Type.STRING, None):
            message = f"`{setting.name}` takes a text, found {describe(worth)}"
            self._report.error("B201", message, setting.node.value, help=_hint((Type.STRING,), worth))
            return MISSING
        return MISSING if isinstance(worth, Unknown) else tree_of(worth)

    def _text(self, setting: Setting, scope: Scope) -> Any:
        node = setting.node.value
        worth = self._evaluator.evaluate(node, scope)
        if worth.type in (Type.TABLE, Type.RANGE):
            self._report.error("B201", f"`{setting.name}` takes a value, found {describe(worth)}", node)
            return MISSING
        if isinstance(worth, Unknown):
            return MISSING
        tree = tree_of(worth)
        if isinstance(tree, str) and too_long(self._report, tree, node, setting.name):
            return MISSING
        if isinstance(worth, Varying) and _may_be_null(tree):
            help_ = "an empty text is a value: `''`"
            message = f"`{setting.name}` is null for some tasks: a variable is unset for all of them or for none"
            self._report.error("B209", message, node, help=help_)
            return MISSING
        return tree

    def _argv(self, setting: Setting, scope: Scope) -> Any:
        node = setting.node.value
        if isinstance(node, ast.Text):
            help_ = "there is no shell: `run = [\"program\", \"argument\"]`, or write it as `script = '''…'''`"
            message = f"`{setting.name}` takes a list: the program and its arguments"
            self._report.error("B201", message, node, help=help_)
            return MISSING
        elements = self._elements(node, scope)
        if elements is None:
            return MISSING
        if not elements:
            self._report.error("B202", f"`{setting.name}` names no program", node)
            return MISSING
        if len(elements) > MAX_ARGUMENTS:
            message = f"`{setting.name}` has {len(elements)} elements: at most {MAX_ARGUMENTS}"
            self._report.error("B202", message, node, help="put them into a file, and give the command its path")
            return MISSING
        argv = [self._argument(place, worth) for place, worth in elements]
        if argv[0] == "":
            self._report.error("B202", f"`{setting.name}` names no program", elements[0][0])
            return MISSING
        return MISSING if any(part is MISSING for part in argv) else argv

    def _elements(self, node: ast.Expr, scope: Scope) -> list[tuple[ast.Expr, Worth]] | None:
        """The elements of a list whose length is known now, each with its place; None when there is none."""
        if isinstance(node, ast.ListOf):
            return [(item, self._evaluator.evaluate(item, scope)) for item in node.items]
        if isinstance(node, ast.Binary) and node.operator == "+":
            left, right = self._elements(node.left, scope), self._elements(node.right, scope)
            return None if left is None or right is None else left + right
        worth = self._evaluator.evaluate(node, scope)
        if isinstance(worth, Constant) and isinstance(worth.value, list):
            return [(node, Constant(item)) for item in worth.value]
        if worth.type not in (Type.LIST, None):
            self._report.error("B201", f"`run` takes {Kind.ARGV.value}, found {describe(worth)}", node)
        elif isinstance(worth, Varying):
            message = f"how many arguments there are is the same for every task: `{worth.because}` is not"
            self._report.error("B209", message, node)
        return None

    def _argument(self, node: ast.Expr, worth: Worth) -> Any:
        if worth.type in (Type.LIST, Type.TABLE, Type.RANGE):
            help_ = 'put lists together with `+`: `["program"] + files`' if worth.type is Type.LIST else ""
            self._report.error("B201", f"an argument is one value, found {describe(worth)}", node, help=help_)
            return MISSING
        if worth.type is Type.NULL:
            self._report.error("B201", "an argument is a value, found null", node)
            return MISSING
        if isinstance(worth, Unknown):
            return MISSING
        tree = tree_of(worth)
        if isinstance(tree, str) and too_long(self._report, tree, node):
            return MISSING
        return tree

    def _script(self, setting: Setting, scope: Scope) -> Any:
        node = setting.node.value
        if isinstance(node, ast.Text) and node.interpolates:
            self._interpolated(node, scope)
            return MISSING
        worth = self._evaluator.evaluate(node, scope)
        if isinstance(worth, Varying):
            help_ = f"the script finds it in its environment: `${worth.because}`"
            message = f"a script is the same for every task: `{worth.because}` is not"
            self._report.error("B209", message, node, help=help_)
            return MISSING
        if worth.type not in (Type.STRING, None):
            message = f"`script` takes a text for bash, found {describe(worth)}"
            help_ = "a list of arguments is given with `run`" if worth.type is Type.LIST else ""
            self._report.error("B201", message, node, help=help_)
            return MISSING
        if not isinstance(worth, Constant):
            return MISSING
        script = str(worth.value)
        size = len(script.encode("utf-8", "replace"))
        if size > MAX_SCRIPT_BYTES:
            self._report.error("B211", f"the script is {size} bytes long: at most {MAX_SCRIPT_BYTES}", node)
        elif "\0" in script:
            self._report.error("B211", "the script holds a NUL character", node)
        elif not script.strip():
            self._report.error("B202", "the script is empty", node)
        else:
            return script
        return MISSING

    def _interpolated(self, node: ast.Text, scope: Scope) -> None:
        """`${…}` in a script: the shell's business. Where each is only a name the quotes are all that must change."""
        holes = [part for part in node.parts if isinstance(part, ast.Placeholder)]
        for hole in holes:  # what is unknown here may be a variable of the shell's own
            self._evaluator.evaluate(hole.expr, replace(scope, lenient=True))
        simple = all(isinstance(hole.expr, ast.Ref) and hole.width is None for hole in holes)
        name = holes[0].expr.name if isinstance(holes[0].expr, ast.Ref) else "name"
        edit = self._requoted(node) if simple else None
        self._report.error(
            "B204", "`${ }` in a script is the shell's: it is not replaced here", holes[0],
            note=f"write the script in single quotes and `${name}` in it",
            help="params, lets, sweep variables and dirs are environment variables of the script", edit=edit,
        )  # fmt: skip

    def _requoted(self, node: ast.Text) -> Any:
        """The same text between raw quotes: `${name}` means to bash what it was meant to mean."""
        written = ""
        for part in node.parts:
            written += part if isinstance(part, str) else "${" + getattr(part.expr, "name", "") + "}"
        if "'''" in written or written.endswith("'") or written.startswith("'"):
            return None
        if "\n" in written:
            return None
        quote = "'''" if "'" in written else "'"
        return self._report.edit(node, f"{quote}{written}{quote}")


def _may_be_null(tree: Any) -> bool:
    return tree is None or (isinstance(tree, list) and tree[0] == "if" and any(map(_may_be_null, tree[2:])))


def _range_words(option: Option, shown: Callable[[Any], str]) -> str:
    if option.low is not None and option.low == option.high:
        return shown(option.low)
    if option.low is not None and option.high is not None:
        return f"{shown(option.low)} to {shown(option.high)}"
    return f"at least {shown(option.low)}" if option.low is not None else f"at most {shown(option.high or 0)}"


def _hint(types: tuple[Type, ...], worth: Worth) -> str:
    """What a value of a near type should have been."""
    value: Value = worth.value if isinstance(worth, Constant) else None
    if Type.DURATION in types and worth.type in (Type.INT, Type.FLOAT):
        return f"a duration has a unit: `{text(value)}s`" if value is not None else "a duration has a unit: `30s`"
    if Type.SIZE in types and worth.type in (Type.INT, Type.FLOAT):
        return f"a size has a unit: `{text(value)}MiB`" if value is not None else "a size has a unit: `512MiB`"
    if Type.BOOL in types and value in ("true", "false"):
        return f"write `{value}` without quotes"
    if Type.INT in types and isinstance(value, str) and value.isdecimal():
        return f"write `{value}` without quotes"
    if Type.STRING in types and isinstance(value, int | float):
        return f'write `"{text(value)}"`'
    return ""

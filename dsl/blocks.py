"""A block held against the schema: which options and blocks may stand in it, how often, under which label. No value is
looked at here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from dsl import ast, schema
from dsl.diagnostics import Place, Placed, Report
from dsl.schema import BLOCKS, RESERVED, Label, Support
from wire.bounds import MAX_NAME, NAME, TAKEN_TASK_NAMES, TAKEN_VARIABLES, VARIABLE
from wire.near import did_you_mean


@dataclass(slots=True)
class Setting:
    """An option as it stands in a block, with what the schema says of it."""

    option: schema.Option
    node: ast.Option

    @property
    def name(self) -> str:
        return self.node.name.text


@dataclass(slots=True)
class Reading:
    """A block that was held against the schema: what of it can be worked with."""

    block: ast.Block
    schema: schema.Block
    name: str
    settings: dict[str, Setting] = field(default_factory=dict)
    blocks: dict[str, list[Reading]] = field(default_factory=dict)
    firsts: dict[tuple[str, str], Reading] = field(default_factory=dict)
    """By kind and name: what another of the same name is told to be declared by."""
    arms: list[ast.Arm] = field(default_factory=list)
    silent: bool = False
    """It is not carried out as a whole, and that was told."""
    strange: bool = False
    """An option was refused: it may have been meant for one that is missing."""

    def the(self, kind: str) -> Reading | None:
        """The block of a kind that there is once."""
        found = self.blocks.get(kind)
        return found[0] if found else None


class Reader:
    """Reads blocks. Inside one that this version does not carry out, its parts are not told again."""

    def __init__(self, report: Report, *, execute: bool, spoilt: Callable[[Placed], bool]) -> None:
        self._report = report
        self._execute = execute
        self._spoilt = spoilt
        self.read: list[ast.Block] = []
        self.lost: set[str] = set()
        """Names that a refused block may have declared."""
        self.unnamed: set[str] = set()
        """Kinds of which a block has no usable name: any unknown name may be its."""

    def file(self, file: ast.File) -> Reading:
        """A whole file, as if it were a block. Params and lets are another's."""
        whole = ast.Block(0, 0, ast.Name(0, 0, ""), [], [], file.items, 0, damaged=False)
        return self._read(whole, schema.FILE, "", silent=False)

    def unsupported(self, place: ast.Node, what: str) -> None:
        """This version accepts it and does not carry it out: a warning, an error when it is to run."""
        message = f"{what} is not carried out by this version"
        if self._execute:
            self._report.error("B901", message, place, help="leave it out to run this file with this version")
        else:
            self._report.warning("B901", message, place, help="`run` and `submit` refuse it")

    # ---- blocks

    def _read(self, block: ast.Block, of: schema.Block, name: str, *, silent: bool) -> Reading:
        if of.support is Support.NONE and not silent:
            self.unsupported(block.header, f"`{of.kind}`")
            silent = True
        reading = Reading(block, of, name, silent=silent)
        self._sweep(block, of)
        for item in block.items:
            match item:
                case ast.Option():
                    self._option(item, reading)
                case ast.Block():
                    self._block(item, reading)
                case ast.Arm():
                    self._arm(item, reading)
                case ast.Param() | ast.Let() | ast.Import() if of.kind:
                    word = type(item).__name__.lower()
                    self._report.error("B109", f"`{word}` stands outside of blocks", item, help="move it to the top")
                case ast.Import():
                    self._reserved("import", item)
        self.read.append(block)
        self._required(reading)
        return reading

    def _block(self, block: ast.Block, reading: Reading) -> None:
        kind, inside = block.kind.text, reading.schema
        if kind not in inside.blocks:
            self._lose(block)
            if kind in RESERVED:
                self._reserved(kind, block.header)
            else:
                self._strange_block(block, reading)
            return
        of = BLOCKS[kind]
        before = reading.blocks.setdefault(kind, [])
        if of.once and before:
            related = self._report.related(before[0].block.header, "the first one")
            self._report.error("B104", f"`{kind}` is allowed once{_in(inside)}", block.header, related=related)
            self._read(block, of, "", silent=True)
            return
        name = self._label(block, of)
        block.damaged = block.damaged or self._spoilt(block.header)
        if block.damaged and of.label is Label.NAME:
            self.unnamed.add(kind)
        if not name and of.label is Label.NAME:
            self._lose(block)
            self.unnamed.add(kind)
        first = reading.firsts.get((kind, name))
        if first is not None:
            related = self._report.related(first.block.header, "the first one")
            self._report.error("B111", f"{kind} `{name}` is declared twice", block.header, related=related)
        before.append(self._read(block, of, name, silent=reading.silent))
        if name:
            reading.firsts.setdefault((kind, name), before[-1])

    def _lose(self, block: ast.Block) -> None:
        self.lost.add(block.kind.text)
        self.lost.update(label.text for label in block.labels if isinstance(label, ast.Name))

    def _strange_block(self, block: ast.Block, reading: Reading) -> None:
        kind, inside = block.kind.text, reading.schema
        homes = schema.homes_of_block(kind)
        if kind in inside.options:
            reading.strange = True
            note = f"write `{kind} = …`"
            self._report.error("B109", f"`{kind}` is an option, not a block", block.header, note=note)
        elif homes:
            where = " or ".join(f"`{home}`" if home else "a file, outside of blocks" for home in homes)
            self._report.error("B102", f"`{kind}` belongs in {where}{_not_in(inside)}", block.header)
        elif inside.arms:
            self._report.error("B109", "`exit` holds arms: `75 => retry`", block.header)
        else:
            note = did_you_mean(kind, inside.blocks)
            help_ = "" if note else _holds(inside)
            self._report.error("B101", f"unknown block `{kind}`{_in(inside)}", block.kind, note=note, help=help_)

    def _label(self, block: ast.Block, of: schema.Block) -> str:
        """The name of a block, empty when it has none or it was refused."""
        labels, kind = block.labels, of.kind
        if of.label is Label.NONE:
            if labels:
                place = Place(labels[0].start, labels[-1].end)
                self._report.error("B108", f"a `{kind}` block has no name", place, note="remove it")
            return ""
        if not labels:
            if not block.damaged:
                what = "NAME" if of.label is Label.NAME else '"PATH"'
                self._report.error("B108", f"`{kind}` needs a name", block.header, note=f"write `{kind} {what} {{`")
            return ""
        if len(labels) > 1:
            place = Place(labels[1].start, labels[-1].end)
            self._report.error("B108", f"`{kind}` has one name", place, note="remove this")
            self._lose(block)
            self.unnamed.add(kind)
            return labels[0].text if isinstance(labels[0], ast.Name) else ""
        label = labels[0]
        if of.label is Label.NAME:
            if isinstance(label, ast.Text):
                note = "write it without quotes"
                self._report.error("B108", f"the name of a `{kind}` is a bare word", label, note=note)
                return ""
            return label.text if self.name(label, kind) else ""
        if isinstance(label, ast.Name):
            self._report.error("B108", f"the path of `{kind}` stands in quotes", label, note=f'write "{label.text}"')
            return ""
        if label.interpolates:
            self._report.error("B108", f"the path of `{kind}` holds no `${{ }}`", label)
            return ""
        return "".join(part for part in label.parts if isinstance(part, str))

    def name(self, name: ast.Name, kind: str) -> bool:
        """Whether this may be the name of such a thing; reports why not."""
        word, report = name.text, self._report
        if len(word) > MAX_NAME:
            report.error("B114", f"the name of a {kind} has at most {MAX_NAME} characters", name)
        elif kind in ("param", "let", "dir", "sweep variable"):
            if not VARIABLE.match(word):
                lower = word.lower().strip("_") or "name"
                help_ = "it reaches commands as an environment variable under its own lowercase name"
                edit = report.edit(name, lower)
                message = f"the name of a {kind} is lowercase and begins with a letter: `{word}`"
                report.error("B114", message, name, note=f"write `{lower}`", help=help_, edit=edit)
            elif word in TAKEN_VARIABLES:
                message = f"`{word}` is no name for a {kind}: common tools read that environment variable"
                report.error("B114", message, name)
            elif word in ("job", "task", "node", "attempt"):
                report.error("B114", f"`{word}` is no name for a {kind}: it stands for what runs", name)
            else:
                return True
        elif kind == "task" and word in TAKEN_TASK_NAMES:
            report.error("B114", f"`{word}` is no name for a task: the job has a directory of that name", name)
        elif not NAME.match(word):
            report.error("B114", f"`{word}` is no name", name)
        else:
            return True
        return False

    def _sweep(self, block: ast.Block, of: schema.Block) -> None:
        if block.axes and not of.sweeps:
            place = Place(block.axes[0].start, block.axes[-1].end)
            self._report.error("B109", f"`for` stands in the header of a task, not of `{of.kind}`", place)

    # ---- options

    def _option(self, item: ast.Option, reading: Reading) -> None:
        name, inside = item.name.text, reading.schema
        option = inside.options.get(name)
        if option is None and inside.other is not None:
            option = self._other(item, inside)
        if option is None:
            self._strange_option(item, reading)
            return
        before = reading.settings.get(name)
        if before is not None:
            related = self._report.related(before.node, "first set here")
            self._report.error("B103", f"`{name}` is set twice{_in(inside)}", item, related=related)
            return
        if option.support is Support.NONE and not reading.silent:
            self.unsupported(item, f"`{name}`{_in(inside)}")
        reading.settings[name] = Setting(option, item)

    def _other(self, item: ast.Option, inside: schema.Block) -> schema.Option | None:
        """The option for a free name. A near miss of a known one, or an option of tasks, is taken for a mistake."""
        known, name = inside.options, item.name.text
        return None if known and (name in BLOCKS["task"].options or did_you_mean(name, known)) else inside.other

    def _strange_option(self, item: ast.Option, reading: Reading) -> None:
        name, inside = item.name.text, reading.schema
        reading.strange = True
        if name in RESERVED:
            self._reserved(name, item.name)
        elif name in inside.blocks:
            self._report.error("B109", f"`{name}` is a block, not an option", item.name, note=f"write `{name} {{ … }}`")
        elif inside.arms:
            self._report.error("B109", "`exit` holds arms", item, note=f"write `{name} => …`")
        else:
            note = did_you_mean(name, inside.options)
            homes = [f"`{home}`" for home in schema.homes_of_option(name)]
            if homes and not note:
                where = " or ".join(homes) if len(homes) < 4 else f"{', '.join(homes[:-1])} or {homes[-1]}"
                self._report.error("B102", f"`{name}` belongs in {where}{_not_in(inside)}", item.name)
                return
            if not inside.kind:
                self.lost.add(name)
                note = note or f"write `let {name} = …` to name a value"
            help_ = "" if note else _takes(inside)
            meant = note.split("`")[1] if note.startswith("did") and note.count("`") == 2 else ""
            edit = self._report.edit(item.name, meant) if meant else None
            message = f"unknown option `{name}`{_in(inside)}"
            self._report.error("B101", message, item.name, note=note, help=help_, edit=edit)

    def _arm(self, item: ast.Arm, reading: Reading) -> None:
        if reading.schema.arms:
            reading.arms.append(item)
        else:
            self._report.error("B109", f"`=>` belongs in an `exit` block{_not_in(reading.schema)}", item)

    def _reserved(self, word: str, place: ast.Node) -> None:
        message = f"`{word}` is reserved for a later version of the language ({RESERVED[word]})"
        self._report.error("B115", message, place)

    # ---- what is missing, and how it stands

    def _required(self, reading: Reading) -> None:
        block, of = reading.block, reading.schema
        if block.incomplete or reading.strange or self._spoilt(block):
            return
        for option in of.options.values():
            if option.required and option.name not in reading.settings:
                note = f"write `{option.name} = …`: {option.meaning}"
                self._report.error(
                    "B105", f"`{_title(reading)}` needs the option `{option.name}`", block.header, note=note
                )
        if of.command:
            run, script = reading.settings.get("run"), reading.settings.get("script")
            if run and script:
                first, second = sorted((run.node.name, script.node.name), key=lambda name: name.start)
                related = self._report.related(first, "one command")
                message = f"`{_title(reading)}` has `run` and `script`: exactly one of them is its command"
                self._report.error("B107", message, second, related=related)
            elif not run and not script:
                note = "write `run = [\"program\", …]` or `script = '''…'''`"
                self._report.error("B105", f"`{_title(reading)}` has no command", block.header, note=note)


def crowded_lines(report: Report, text: str, blocks: list[ast.Block]) -> None:
    """Warn of two items on one line of a block that has several."""
    for block in blocks:
        if block.kind.text and "\n" not in text[block.header_end : block.end]:
            continue
        for before, item in zip(block.items, block.items[1:], strict=False):
            if isinstance(before, ast.Dropped) or isinstance(item, ast.Dropped):
                continue
            if "\n" not in text[before.end : item.start]:
                report.warning("B016", "two items on one line", item, note="begin a new line here")


def _in(of: schema.Block) -> str:
    return f" in `{of.kind}`" if of.kind else " in a file"


def _not_in(of: schema.Block) -> str:
    return f", not in `{of.kind}`" if of.kind else ", not at the top of a file"


def _title(reading: Reading) -> str:
    return f"{reading.schema.kind} {reading.name}".strip()


def _takes(of: schema.Block) -> str:
    names = ", ".join(f"`{name}`" for name in of.options)
    return f"`{of.kind or 'a file'}` takes {names}" if names else ""


def _holds(of: schema.Block) -> str:
    names = ", ".join(f"`{name}`" for name in of.blocks)
    return f"`{of.kind}` holds {names}" if names and of.kind else f"a file holds {names}" if names else ""

"""Every diagnostic code: a title, and the longer story with an example, for those who ask what a code means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Code:
    title: str
    story: str


CODES: Final[dict[str, Code]] = {
    # ---- words and structure
    "B000": Code(
        "more mistakes than are shown",
        "A hundred diagnostics of one file are shown. Mend some of these and check again.",
    ),
    "B001": Code(
        "something else was expected here",
        "The text does not fit the grammar at this place. The message says what would; the mark is on what was found.",
    ),
    "B002": Code(
        "a number with an unknown unit",
        "Durations end in ms, s, m, h or d and may combine from large to small: `1h30m`. Sizes end in B, kB, "
        "MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (powers of 1024). The unit touches its number: "
        "`5m`, not `5 m`.",
    ),
    "B003": Code(
        "a text without its closing quote",
        "'raw' and \"double\" quotes close on their line; a text of several lines is in tripled quotes. A text "
        "that holds three quotes itself is put between four.",
    ),
    "B004": Code(
        "a character that means nothing here",
        "Outside of quotes there are names (letters, digits and `_`), numbers with units, and the signs of "
        "the grammar.",
    ),
    "B005": Code(
        "a block without its `}`",
        "With braces that don't match, indentation tells which block lacks one: the `}` belongs below the "
        "line that opened the block.",
    ),
    "B006": Code(
        "a `}` that closes nothing",
        "There is one `}` more than blocks are open here.",
    ),
    "B007": Code(
        "a file that is no text",
        "A file is UTF-8 text without NUL characters, of a sane size.",
    ),
    "B008": Code(
        "an unknown escape",
        'In double quotes a backslash begins an escape: `\\n`, `\\t`, `\\"` or `\\\\`. In single quotes it is itself.',
    ),
    "B009": Code(
        "a `${ }` that can't be read",
        "`${expression}` ends at the first `}` outside of a 'raw' text, on the same line, and holds no double"
        " quote. `${n:05}` fills an int with zeros. The two characters themselves are written `$${`.",
    ),
    "B010": Code(
        "a value is missing",
        "A value begins on the line of its `=`.",
    ),
    "B011": Code(
        "`:` or `=>` for `=`",
        "An option is given as `name = value`.",
    ),
    "B012": Code(
        "`=` is missing",
        "An option is given as `name = value`, a block as `name { … }`.",
    ),
    "B013": Code(
        "`=` before a block",
        "`{ }` is a block and no value: `env { A = '1' }` has no `=`.",
    ),
    "B014": Code(
        "a stray `,`",
        "Commas part the elements of lists and arguments. Options need none.",
    ),
    "B015": Code(
        "`,` is missing",
        "The elements of a list have commas between them; a last one is allowed.",
    ),
    "B016": Code(
        "two items on one line",
        "Each option has its own line, except in a block that is one line as a whole.",
    ),
    "B017": Code(
        "nested too deeply",
        "Name parts of the expression with `let`.",
    ),
    "B018": Code(
        "chained comparison",
        "`a < b < c` is written `a < b and b < c`.",
    ),
    "B019": Code(
        "a reserved word as a name",
        "These words are never names: and as by else false for if import in let not null or param secret true.",
    ),
    "B020": Code(
        "a literal without a value",
        "A number that does not fit in 64 bits, or a day that there is not.",
    ),
    "B021": Code(
        "a name with `-`",
        "Names are made of letters, digits and `_`.",
    ),
    # ---- blocks, options, names
    "B101": Code(
        "an unknown option or block",
        "The block does not take it. `help` lists what it takes.",
    ),
    "B102": Code(
        "in the wrong block",
        "There is such an option or block, but it belongs elsewhere.",
    ),
    "B103": Code(
        "an option set twice",
        "Each option stands once in its block.",
    ),
    "B104": Code(
        "a block that is allowed once",
        "`prep`, `release`, `start`, `env`, `needs` and `exit` stand once each.",
    ),
    "B105": Code(
        "something required is missing",
        "A job names its pool. `start`, `prep`, `task` and `release` have a command: `run`, a list of the "
        "program and its arguments without a shell, or `script`, a text for bash.",
    ),
    "B107": Code(
        "two that exclude each other",
        "A command is `run` or `script`; a file is `text`, `from` or `url`; `sha256` stands beside `url`.",
    ),
    "B108": Code(
        "a name that is missing or too much",
        "`pool`, `job`, `task` and `dir` have a bare word as their name, `file` and `output` a path in "
        "quotes, others none.",
    ),
    "B109": Code(
        "the wrong shape",
        "An option written as a block, a block as an option, or an arm outside of `exit`.",
    ),
    "B110": Code(
        "an unknown name",
        "No param, let, sweep variable, dir, task, pool or type of this name is declared.",
    ),
    "B111": Code(
        "declared twice",
        "Params, lets, sweep variables and dirs share one space of names: a command sees all.",
    ),
    "B112": Code(
        "a let that is never used",
        "No expression and no script names it.",
    ),
    "B114": Code(
        "a name that can't be used",
        "Params, lets, sweep variables and dirs are lowercase, since they reach commands as environment "
        "variables and must hide none that the system or a common tool reads. Some names of tasks are names "
        "of directories.",
    ),
    "B115": Code(
        "reserved for later",
        "The word belongs to a part of the language that does not exist yet.",
    ),
    "B117": Code(
        "a variable that steers what runs as root",
        "Some environment variables tell loaders, shells and interpreters what else to load or run: `PATH`, `HOME`, "
        "`IFS`, `BASH_ENV`, all that begin with `LD_`, `PYTHON`, `PERL`, … An elevated command has fixed ones and its "
        "own `env` may set none; those of its job's `env` are left out for it.",
    ),
    "B118": Code(
        "a file that can't land there",
        'The path of `file "PATH"` lies below the command\'s work directory: relative, without `..`, and no file of '
        "the command is where another one's directory is.",
    ),
    "B119": Code(
        "a file from anybody",
        "Over plain `http` whoever is on the way can give another content. `sha256` says what it must be; `https` says "
        "who gives it. An elevated command takes nothing without either.",
    ),
    # ---- values
    "B201": Code(
        "a value of another type",
        "The option takes another type of value. Numbers have units: `30s`, `4GiB`.",
    ),
    "B202": Code(
        "a value out of range",
        "The message says from where to where it goes.",
    ),
    "B203": Code(
        "a param without a usable value",
        "A param without a default needs `--param name=value`, the value must be of its type and among those "
        "after `in`.",
    ),
    "B204": Code(
        "`${ }` in a script",
        "A script reaches bash unchanged. Write it in single quotes; params, lets, sweep variables and dirs "
        "are environment variables in it: `$date`.",
    ),
    "B207": Code(
        "an operator or a part that does not fit",
        "Operators take values that belong together: `1 + 'a'` does not.",
    ),
    "B208": Code(
        "an expression without a value",
        "Division by zero, a position that a list does not have, too large a result.",
    ),
    "B209": Code(
        "known only when it runs",
        "What differs from task to task or from node to node stands in `run`, `env`, `file` and `output` "
        "only; all other options are the same for every task.",
    ),
    "B210": Code(
        "a wrong call",
        "There are `len`, `min`, `max`, `lines` and `csv`; `stop(after = n)` and `retry(…)`.",
    ),
    "B211": Code(
        "too long for a command",
        "The kernel takes arguments and variables of up to 128 KiB. Use a file.",
    ),
    "B212": Code(
        "a file that can't be read",
        "`csv` and `lines` read files by a path relative to the `.batch` file; `from` of a `file` brings in what lies "
        "beside it or below, also where links lead, and is no larger than 256 MiB.",
    ),
    "B213": Code(
        "a malformed csv",
        "The first row names the columns; every row has as many cells.",
    ),
    # ---- dependencies
    "B301": Code(
        "a cycle",
        "Each of these waits for the next, and the last for the first: none could ever start.",
    ),
    "B302": Code(
        "not an axis of both",
        "`x[v]` pairs tasks by value: `v` is an axis of `x` and of the task that waits.",
    ),
    "B304": Code(
        "an arm that is never reached",
        "`else` matches all that no arm before it did.",
    ),
    "B305": Code(
        "a failure that counts nowhere",
        "The failure of a task with `optional = true` counts for no `after`: what waits for `x.failed` of it would "
        "never run.",
    ),
    # ---- pools
    "B604": Code(
        "not what the live pool is, or more than its nodes have",
        "A `pool` block in a submitted file is a claim on the live pool: each option it names must be as it "
        "is there. Tasks take at most the slots, processors and memory that some node of the pool has.",
    ),
    # ---- sweeps
    "B701": Code(
        "an empty axis",
        "An axis without a value makes no task.",
    ),
    "B702": Code(
        "a very large sweep",
        "It is allowed, and worth a second look.",
    ),
    "B703": Code(
        "two axes of one name",
        "Each axis has its own name.",
    ),
    "B705": Code(
        "too many tasks",
        "A job has up to 100 million tasks.",
    ),
    "B706": Code(
        "a repeated value on an axis",
        "Tasks are named by their values: each value stands once on its axis.",
    ),
    "B707": Code(
        "values that make no axis",
        "An axis is a range, a list of texts or numbers, or rows: `for (a, b) in [['x', 1]]`, `for (a, b) in "
        "csv('f.csv')`.",
    ),
    # ---- this version, this cluster
    "B801": Code(
        "refused by the cluster",
        "The file is right, but what it asks for is not to be had there.",
    ),
    "B802": Code(
        "elevation refused",
        "`elevated = true` takes the pool's word (`elevation = allowed`) and the right of whoever submits "
        "(`elevation` in the coordinator's `[pools.NAME]`; admins have it). The node must allow it too.",
    ),
    "B803": Code(
        "no commands on the coordinator's machine",
        "`on_end` runs a command where the coordinator runs. Its configuration does not allow that (`allowed` of "
        "`[on_end]`), or only to admins, because the command would run as the coordinator's own user.",
    ),
    "B900": Code(
        "refused by the coordinator",
        "The compiled document does not hold there; its version may differ.",
    ),
    "B901": Code(
        "not carried out yet",
        "The language knows it and this version checks it, but does not carry it out: `run` and `submit` "
        "refuse the file rather than leave a part of it out.",
    ),
}


def story(code: str) -> Code | None:
    """What is to be said of a code, or None when there is no such code."""
    return CODES.get(code)

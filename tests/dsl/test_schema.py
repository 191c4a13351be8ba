"""Every option of the schema, with a value that it takes and one that it refuses; every code with its story."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import dsl
from dsl import codes, schema
from dsl.beside import Beside
from dsl.compile import default_of
from dsl.schema import BLOCKS, RESERVED, Kind

SAMPLES = {
    ("", "edition"): ("1", "3"),
    ("pool", "nodes"): ("2", "0"),
    ("pool", "slots"): ("8", "100000"),
    ("pool", "placement"): ("pack", "packed"),
    ("pool", "sharing"): ("fifo", "1"),
    ("pool", "elevation"): ("allowed", "true"),
    ("pool", "lost_after"): ("1s", "1ms"),
    ("job", "pool"): ("p", "q"),
    ("job", "priority"): ("-1000", "1001"),
    ("job", "timeout"): ("6h", "6"),
    ("job", "finish"): ("manual", "never"),
    ("job", "on_failure"): ("stop(after = 2)", "stop(after = 0)"),
    ("job", "parallel"): ("100", "0"),
    ("job", "release_grace"): ("0s", "-1s"),
    ("dir", "size"): ("6GiB", "0B"),
    ("dir", "fresh"): ("true", "1"),
    ("needs", "cpus"): ("1.5", "-1"),
    ("needs", "memory"): ("4GiB", "4"),
    ("needs", "disk"): ("1GB", "1"),
    ("needs", "gpus"): ("1", "1MiB"),
    ("needs", "labels"): ("['avx512']", "[1]"),
    ("file", "text"): ("'x'", "3"),
    ("file", "url"): ("'https://x/'", "3"),
    ("file", "sha256"): (f"'{'a' * 64}'", "'abc'"),
    ("file", "from"): ("'rows.csv'", "3"),
    ("file", "mode"): ("'0755'", "'4755'"),
    ("output", "to"): ("'s3://x/'", "1"),
    ("output", "when"): ("failure", "always"),
    ("on_end", "run"): ("['x', '${job.id}']", "'x 1'"),
    ("start", "parallel"): ("1", "0"),
    ("prep", "wait"): ("false", "0"),
    ("prep", "rerun_after_reboot"): ("false", "null"),
    ("prep", "parallel"): ("4", "0"),
    ("release", "parallel"): ("4", "none"),
    ("task", "after"): ("other", "another"),
    ("task", "slots"): ("2", "0"),
    ("task", "optional"): ("true", "1"),
}
OF_COMMANDS = {
    "run": ("['x', '1']", "'x 1'"),
    "script": ("'true'", "['true']"),
    "timeout": ("30m", "0s"),
    "retries": ("unlimited", "-1"),
    "backoff": ("5s..2m", "2m..5s"),
    "elevated": ("false", "no"),
    "stop_signal": ("USR1", "SIGUSR1"),
    "stop_grace": ("0s", "-1s"),
    "keep": ("7d", "7"),
}
COMMANDS = ("start", "prep", "task", "release")
SAMPLES |= {(kind, name): pair for kind in COMMANDS for name, pair in OF_COMMANDS.items()}
OPTIONS = [(block.kind, name) for block in BLOCKS.values() for name in block.options]


def file_with(kind: str, name: str, value: str) -> str:
    """A file that is right but for this option."""
    line = f"{name} = {value}\n"
    here = {block: (line if block == kind else "") for block in BLOCKS}
    run = {block: "" if block == kind and name in ("run", "script") else "run = ['x']\n" for block in COMMANDS}
    content = "" if kind == "file" and name in ("text", "from", "url") else "text = 'x'\n"
    content = "url = 'https://x/'\n" if kind == "file" and name == "sha256" else content
    call = here["on_end"] or "run = ['x']\n"
    to = "" if kind == "output" and name == "to" else "to = 's3://x/'\n"
    pool = "" if kind == "job" and name == "pool" else "pool = p\n"
    return (
        f"{here['']}pool p {{\n{here['pool']}start {{\n{run['start']}{here['start']}}}\n}}\n"
        f"job j {{\n{pool}{here['job']}dir d {{\n{here['dir']}}}\nprep {{\n{run['prep']}{here['prep']}}}\n"
        f"task other {{ run = ['x'] }}\ntask t {{\n{run['task']}{here['task']}needs {{\n{here['needs']}}}\n"
        f"file 'f' {{\n{content}{here['file']}}}\noutput 'o' {{\n{to}{here['output']}}}\n}}\n"
        f"release {{\n{run['release']}{here['release']}}}\non_end {{\n{call}}}\n}}\n"
    )


def errors(text: str) -> list[dsl.Diagnostic]:
    beside = Beside("a" * 64, 3, 0o644)
    told = dsl.check_text(text, "x", read_file=lambda _: b"", read_beside=lambda _: beside)
    return [found for found in told if found.is_error]


def test_every_option_has_a_sample_here() -> None:
    missing = set(OPTIONS) - set(SAMPLES)
    assert not missing


@pytest.mark.parametrize(("kind", "name"), OPTIONS)
def test_an_option_takes_a_value_that_fits(kind: str, name: str) -> None:
    text = file_with(kind, name, SAMPLES[kind, name][0])
    assert errors(text) == []


@pytest.mark.parametrize(("kind", "name"), OPTIONS)
def test_an_option_refuses_a_value_that_does_not_fit_once_and_at_its_place(kind: str, name: str) -> None:
    bad = SAMPLES[kind, name][1]
    text = file_with(kind, name, bad)
    (found,) = errors(text)
    assert found.code in ("B201", "B202", "B110")
    line = f"{name} = {bad}"
    assert text.index(line) <= found.span.start < found.span.end <= text.index(line) + len(line)


@pytest.mark.parametrize(("kind", "name"), OPTIONS)
def test_an_option_set_twice_is_told_once_at_the_second(kind: str, name: str) -> None:
    good = SAMPLES[kind, name][0]
    text = file_with(kind, name, f"{good}\n{name} = {good}")
    (found,) = errors(text)
    assert found.code == "B103"
    assert found.span.start > text.index(f"{name} = {good}")
    assert len(found.related) == 1


def test_defaults_are_written_as_people_write_them_and_mean_what_they_say() -> None:
    for block in BLOCKS.values():
        for option in block.options.values():
            value = default_of(option)
            if option.kind is Kind.WORD:
                assert value in option.words
            elif value is not None and option.low is not None:
                assert option.low <= value <= (option.high or value)


@pytest.mark.parametrize("word", sorted(RESERVED))
def test_a_reserved_word_is_refused_with_a_sentence_that_says_so(word: str) -> None:
    as_block = f"{word} x {{ }}\n" if word not in ("import", "secret") else ""
    as_option = f"{word} = 1\n" if word not in ("import", "secret") else ""
    as_item = {"import": "import 'x.batch'\n", "secret": "secret param x: string\n"}.get(word, "")
    for text in filter(None, (as_block, as_option, as_item)):
        (found,) = errors(text)
        assert found.code == "B115"
        assert f"`{word}` is reserved" in found.message


def test_every_code_that_is_reported_has_a_story_and_every_story_a_title() -> None:
    package = Path(dsl.__file__).parent
    used = {code for path in package.glob("*.py") for code in re.findall(r'"(B\d{3})"', path.read_text())}
    assert used <= set(codes.CODES)
    for code, entry in codes.CODES.items():
        assert re.fullmatch(r"B\d{3}", code)
        assert entry.title
        assert entry.story.endswith((".", "?"))


def test_every_block_that_is_named_as_a_part_exists() -> None:
    for block in BLOCKS.values():
        assert set(block.blocks) <= set(BLOCKS)
    assert schema.homes_of_block("task") == ["job"]

"""The grammar, the tree it makes, and what no text may do to it."""

from __future__ import annotations

import random
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dsl
from dsl import ast, cache, parser, tablemaker, tables
from dsl.diagnostics import Report

WHOLE = (Path(__file__).with_name("golden") / "whole_language.batch").read_text(encoding="utf-8")


def tree(text: str) -> ast.File:
    report = Report("x")
    file = parser.parse(text, report)
    assert report.found == []
    return file


def found(text: str) -> list[str]:
    return [one.code for one in dsl.check_text(text, "x", read_file=lambda _: b"") if one.is_error]


def test_the_grammar_has_no_conflict_and_no_two_terminals_that_take_the_same_text() -> None:
    tablemaker.build(tables.text_of_grammar(), strict=True)


def test_every_node_of_the_whole_language_stands_where_it_says() -> None:
    def walk(node: object) -> None:
        if isinstance(node, list):
            for part in node:
                walk(part)
        if not isinstance(node, ast.Node):
            return
        assert 0 <= node.start <= node.end <= len(WHOLE)
        inside = [getattr(node, name) for name in dir(node) if not name.startswith("_") and name != "header"]
        parts = [part for part in inside if isinstance(part, ast.Node)]
        parts += [part for many in inside if isinstance(many, list) for part in many if isinstance(part, ast.Node)]
        for part in parts:
            assert node.start <= part.start <= part.end <= node.end, (node, part)
            walk(part)

    file = tree(WHOLE)
    assert len(file.items) == 7
    walk(file.items)


def test_names_and_texts_are_found_where_they_are_written() -> None:
    file = tree("let a = \"x ${b} y\"\nlet b = 'c'\n")
    first = file.items[0]
    assert isinstance(first, ast.Let)
    assert isinstance(first.value, ast.Text)
    hole = first.value.parts[1]
    assert isinstance(hole, ast.Placeholder)
    assert (hole.start, hole.end, hole.expr.start, hole.expr.end) == (11, 15, 13, 14)


def test_a_hole_in_a_dedented_text_knows_its_place() -> None:
    text = 'let a = """\n      one\n        ${ missing }\n    """\n'
    (one,) = [one for one in dsl.check_text(text, "x", read_file=lambda _: b"") if one.is_error]
    assert text[one.span.start : one.span.end] == "missing"


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("'''\n  a\n    b\n  '''", "a\n  b\n"),
        ("'''\n  a\n\n  b'''", "a\n\nb"),
        ("'''a'''", "a"),
        ("'''\n\ta\n\t\tb\n'''", "a\n\tb\n"),
        ("''''\n  it's '''quoted'''\n  ''''", "it's '''quoted'''\n"),
        ("'''\n'''", ""),
        ("''", ""),
        ('""', ""),
        ('"a\\n\\t\\"\\\\"', 'a\n\t"\\'),
        ('"$${x} $x $"', "${x} $x $"),
        ("'${x} \\n'", "${x} \\n"),
        ('"""\n  a "b"\n  """', 'a "b"\n'),
        ("'a }'", "a }"),
        ("\"${'}'}\"", "}"),
    ],
)
def test_quoted_texts(written: str, value: str) -> None:
    text = f"pool p {{ }}\njob j {{\npool = p\ntask t {{ run = ['x', {written}] }}\n}}"
    made = dsl.compile_text(text, "x", {}, read_file=lambda _: b"", execute=True)
    assert made.diagnostics == []
    assert made.document is not None
    assert made.document["jobs"][0]["groups"][0]["command"]["argv"][1] == value


def test_comments_are_kept_and_a_mark_in_a_text_is_none() -> None:
    file = tree("# one\nlet a = '# not' # two\nlet b = '''\n# not\n'''#three")
    assert [comment.text for comment in file.comments] == ["# one", "# two", "#three"]


@pytest.mark.parametrize("text", ["\ufeffpool p { }\r\n", "", "\n\n", "# only", "#", " \t"])
def test_harmless_files_are_clean(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "let a = " + "(" * 5000 + "1" + ")" * 5000,
        "let a = " + "[" * 5000 + "]" * 5000,
        "let a = " + "-" * 5000 + "1",
        "let a = " + "not " * 5000 + "true",
        "let a = 1" + " + 1" * 5000,
        "let a = b" + "[0]" * 5000,
        "param a: " + "list[" * 5000 + "int" + "]" * 5000,
        'let a = "' + "${" * 5000 + '"',
        "a {" * 3000 + "}" * 3000,
        "a {" * 3000,
        "}" * 3000,
        "\0",
        "'" * 10001,
        "let a = " + "9" * 100_000,
        "let a = " + "9" * 100_000 + ".5s",
        "=" * 5000,
        "job j { " * 500 + "é" * 500,
        "".join(f"let l{n} = [{'[' * 40}l{n + 1}{']' * 40}]\n" for n in range(300)) + "let l300 = 1",
        "".join(f'let l{n} = "${{l{n + 1}}}"\n' for n in range(300)) + "let l300 = 1",
        "".join(f"let l{n} = l{n + 1}\n" for n in range(3000)) + "let l3000 = l0",
    ],
    ids=lambda text: text[:12],
)
def test_a_text_made_to_hurt_is_refused_and_not_a_crash(text: str) -> None:
    codes = found(text)
    assert codes
    assert len(codes) <= 101


def test_a_chain_of_names_is_as_long_as_one_likes_downwards_and_bounded_upwards() -> None:
    down = "param n: int = 1\nlet l0 = n\n" + "".join(f"let l{n + 1} = l{n} + 1\n" for n in range(3000))
    used = "param of: int = l3000\npool p { }\njob j {\npool = p\ntask t { run = ['x', \"${l3000}\"] }\n}"
    made = dsl.compile_text(down + used, "x", {}, read_file=lambda _: b"", execute=True)
    assert made.diagnostics == []
    assert made.document is not None
    assert made.document["jobs"][0]["groups"][0]["command"]["argv"][1] == "3001"
    up = "".join(f"let l{n} = l{n + 1}\n" for n in range(300)) + "let l300 = 1\n"
    first = dsl.check_text(up, "x", read_file=lambda _: b"")[0]
    assert first.message == "`l0` leads to `l151`, declared below it, through 151 names"


def test_a_value_begins_on_the_line_of_its_sign_and_may_go_on_below() -> None:
    assert found("let a =\n  3") == ["B010"]
    assert found("pool p {\n slots =\n nodes = 3\n}") == ["B010"]
    assert found("let a = 1 +\n  2") == []
    assert found("let a = [\n  1,\n  2,\n]") == []


@pytest.mark.parametrize("blank", ["\u00a0", "\u2028", "\u3000", "\x0b", "\x1c", "\u200b"])
def test_a_blank_that_is_no_space_is_one_mistake(blank: str) -> None:
    (one,) = dsl.check_text(f"pool{blank}p {{ }}", "x", read_file=lambda _: b"")
    assert (one.code, one.message) == ("B004", f"unexpected character `U+{ord(blank):04X}`")
    assert found(f"let a = 'x{blank}y' # {blank}") == []


def test_names_that_recovery_dropped_are_not_unknown() -> None:
    text = (
        "pool p { }\njob j {\npool = p\ntask one for i in [1, 2 { run = ['x'] }\n"
        "task two { after = one run = ['x'] }\n}"
    )
    assert found(text) == ["B001"]


MUTATIONS = 400
POOL = (
    "=",
    ":",
    ",",
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    "=>",
    "..",
    "==",
    "for",
    "in",
    "task",
    "x",
    "5",
    "30min",
    "'x",
    '"y"',
)


def mutants(count: int) -> list[str]:
    """The whole language with one token deleted, doubled, replaced, or another one put before it."""
    chance = random.Random(20261122)
    words = [(word.start, word.end) for word in parser.front().words(WHOLE, 0, len(WHOLE))[0][:-1]]
    made = []
    for _ in range(count):
        start, end = chance.choice(words)
        other = chance.choice(POOL)
        made.append(
            chance.choice(
                [
                    WHOLE[:start] + WHOLE[end:],
                    f"{WHOLE[:end]} {WHOLE[start:]}",
                    WHOLE[:start] + other + WHOLE[end:],
                    f"{WHOLE[:start]}{other} {WHOLE[start:]}",
                ]
            )
        )
    return made


def test_a_token_too_few_too_many_or_wrong_is_one_error_nine_times_of_ten_and_never_many() -> None:
    counts = [len(found(text)) for text in mutants(MUTATIONS)]
    wrong = [count for count in counts if count]
    assert len(wrong) > MUTATIONS * 0.9
    assert wrong.count(1) >= 0.9 * len(wrong)
    assert sum(count > 3 for count in wrong) <= 0.005 * len(wrong)
    assert max(wrong) <= 6


def test_a_cut_off_file_is_never_a_crash() -> None:
    chance = random.Random(7)
    for _ in range(60):
        cut = chance.randrange(len(WHOLE))
        found(WHOLE[:cut])
        found(WHOLE[cut:])


@settings(max_examples=100)
@given(st.text(st.sampled_from("a1.5s'\"#=>{}[]() \t\n\r\f\u00a0\u2028\x0bé;-")))
def test_every_character_is_in_a_word_or_a_comment_or_is_a_blank(text: str) -> None:
    words, comments = parser.front().words(text, 0, len(text))
    at = 0
    for piece in sorted([*words, *comments], key=lambda piece: (piece.start, piece.end)):
        assert set(text[at : piece.start]) <= set(" \t\n\r\f")
        assert piece.text == text[piece.start : piece.end]
        at = piece.end
    assert at == len(text)
    for word in words[:-1]:
        before = text[: word.start]
        assert (word.line, word.column) == (before.count("\n") + 1, word.start - before.rfind("\n"))


# ---- the grammar's tables


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where tables are kept, with none there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tables.tables.cache_clear()
    yield tmp_path / "poolkeeper"
    tables.tables.cache_clear()


def again() -> tables.Tables:
    tables.tables.cache_clear()
    return tables.tables()


def test_tables_are_kept_in_a_directory_of_the_users_own_and_read_as_they_were_made(fresh: Path) -> None:
    made = tables.tables()
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o700
    (kept,) = fresh.iterdir()
    before = kept.stat().st_mtime_ns
    assert again() == made
    assert [path.stat().st_mtime_ns for path in fresh.iterdir()] == [before]


@pytest.mark.parametrize("open_to", [0o755, 0o770, 0o777])
def test_a_directory_that_is_open_to_others_is_not_used(fresh: Path, open_to: int) -> None:
    fresh.mkdir()
    fresh.chmod(open_to)
    assert tables.tables().states
    assert list(fresh.iterdir()) == []
    (fresh / "x").write_text("x")
    assert cache.kept("x") is None


def test_a_link_in_the_place_of_the_directory_is_not_followed(fresh: Path) -> None:
    other = fresh.with_name("other")
    other.mkdir(mode=0o700)
    fresh.symlink_to(other)
    assert tables.tables().states
    assert list(other.iterdir()) == []


def test_nobody_without_a_home_keeps_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "nowhere")
    cache.keep("x", "x")
    assert cache.kept("x") is None


@pytest.mark.parametrize("spoilt", [b"", b"\xff", b"[]", b"{}", b'{"grammar": "another"}', 1000])
def test_what_was_kept_and_is_spoilt_is_made_again(fresh: Path, spoilt: bytes | int) -> None:
    tables.tables()
    (kept,) = fresh.iterdir()
    kept.write_bytes(kept.read_bytes()[:spoilt] if isinstance(spoilt, int) else spoilt)
    before = kept.read_bytes()
    made = again()
    assert again() == made
    assert kept.read_bytes() != before

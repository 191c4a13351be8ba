"""Expressions that travel: what they mean, and that nothing malformed or boundless gets through."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire import template
from wire.bounds import MAX_ARGUMENT_BYTES
from wire.template import Scope, TemplateError, check, evaluate, render, run_names, varies_by_task

RUN = {"job.id": "j-1", "job.name": "j", "task.id": "t-3", "task.index": 3, "node.id": "n1", "attempt": 1}
SCOPE = Scope((17, "fx", True), RUN, {"market": "/dirs/market"})


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        ("plain", "plain"),
        (17, "17"),
        (None, ""),
        (["axis", 0], "17"),
        (["axis", 2], "true"),
        (["run", "task.index"], "3"),
        (["dir", "market"], "/dirs/market"),
        (["text", "a", ["axis", 1], "-", ["pad", ["axis", 0], 5]], "afx-00017"),
        (["op", "+", ["axis", 0], 3], "20"),
        (["op", "/", 8, 2], "4"),
        (["op", "/", 7, 2], "3.5"),
        (["op", "//", -7, 2], "-4"),
        (["op", "%", ["axis", 0], 5], "2"),
        (["op", "in", ["axis", 1], ["list", "fx", "rates"]], "true"),
        (["op", "not in", 3, ["list", 3]], "false"),
        (["op", "and", ["axis", 2], ["op", ">", ["axis", 0], 16]], "true"),
        (["op", "or", False, ["axis", 2]], "true"),
        (["not", ["axis", 2]], "false"),
        (["neg", ["axis", 0]], "-17"),
        (["if", ["op", "==", ["axis", 1], "fx"], "yes", "no"], "yes"),
        (["index", ["list", "a", "b"], 1], "b"),
        (["call", "max", ["axis", 0], 3, 99], "99"),
        (["call", "len", ["list", 1, 2]], "2"),
        (["list", 1, "a"], '[1,"a"]'),
    ],
)
def test_each_form_means_what_the_language_means(expr: Any, text: str) -> None:
    check(expr, 3, frozenset({"market"}))
    assert render(expr, SCOPE) == text


@pytest.mark.parametrize(
    "expr",
    [
        ["axis", 3],
        ["axis", -1],
        ["axis", True],
        ["text", 2**63],
        ["text", float("inf")],
        ["axis", "0"],
        ["run", "host"],
        ["dir", "other"],
        ["op", "**", 2, 3],
        ["op", "+", 1],
        ["call", "open", "/etc/passwd"],
        ["call", "len"],
        ["pad", 1, 0],
        ["pad", 1, 65],
        ["pad", 1, "5"],
        ["if", 1, 2],
        ["not"],
        [],
        [1],
        ["unknown", 1],
        {"a": 1},
        b"bytes",
        ["text", {"a": 1}],
    ],
)
def test_what_is_malformed_is_refused(expr: Any) -> None:
    with pytest.raises(TemplateError):
        check(expr, 3, frozenset({"market"}))


@pytest.mark.parametrize(
    "expr",
    [
        ["op", "//", 1, 0],
        ["op", "%", 1, ["op", "-", 1, 1]],
        ["index", ["list", 1], 5],
        ["op", "+", 1, "a"],
        ["op", "*", "a", 1_000_000_000],
        ["op", "*", ["list", 1], 1_000_000_000],
        ["op", "%", "%d", 3],
        ["op", "*", 2**62, 2**62],
        ["op", "*", 1e308, 10],
        ["op", "<", 1, "a"],
        ["pad", "a", 5],
        ["neg", "a"],
        ["call", "min", 1, "a"],
        ["call", "len", 5],
        ["index", 5, 0],
    ],
)
def test_an_expression_without_a_value_is_one_kind_of_error(expr: Any) -> None:
    check(expr, 0, frozenset())
    with pytest.raises(TemplateError):
        render(expr, SCOPE)


def test_no_text_grows_beyond_what_a_command_can_be_given() -> None:
    long = "x" * MAX_ARGUMENT_BYTES
    assert render(["text", long], SCOPE) == long
    with pytest.raises(TemplateError):
        render(["text", long, "x"], SCOPE)
    with pytest.raises(TemplateError):
        render(["text", "ü" * (MAX_ARGUMENT_BYTES // 2 + 1)], SCOPE)


def test_nesting_has_an_end() -> None:
    expr: Any = 1
    for _ in range(template.MAX_DEPTH + 2):
        expr = ["neg", expr]
    with pytest.raises(TemplateError):
        check(expr, 0, frozenset())


def test_it_is_known_which_texts_differ_from_task_to_task_and_what_they_ask_for() -> None:
    assert not varies_by_task(["text", ["run", "job.id"], ["dir", "market"], ["run", "node.id"]])
    assert varies_by_task(["text", "x", ["if", ["op", "==", ["run", "attempt"], 1], 1, 2]])
    assert varies_by_task(["list", ["axis", 0]])
    assert run_names(["text", ["run", "job.id"], ["pad", ["run", "attempt"], 3]]) == {"job.id", "attempt"}
    assert run_names("x") == frozenset()


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-100, 100), st.floats(allow_nan=False), st.text(max_size=4)),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)
forms = st.sampled_from(
    ["axis", "run", "dir", "text", "pad", "op", "not", "neg", "if", "index", "list", "call", "len", "+"]
)
trees = st.recursive(
    st.one_of(json_values, st.just(["axis", 0]), st.just(["axis", 1]), st.just(["run", "attempt"])),
    lambda inner: st.builds(lambda form, parts: [form, *parts], forms, st.lists(inner, max_size=4)),
    max_leaves=20,
)


@given(trees)
def test_whatever_is_accepted_has_a_text_or_is_refused_in_one_way(expr: Any) -> None:
    try:
        check(expr, 3, frozenset({"market"}))
    except TemplateError:
        return
    with contextlib.suppress(TemplateError):
        assert isinstance(render(expr, SCOPE), str)


@given(st.integers(-1000, 1000), st.integers(-1000, 1000), st.sampled_from(["+", "-", "*", "//", "%", "<", "=="]))
def test_arithmetic_on_axes_is_the_arithmetic_of_constants(left: int, right: int, sign: str) -> None:
    from dsl import operators

    if right == 0 and sign in ("//", "%"):
        return
    scope = Scope((left, right), {}, {})
    assert evaluate(["op", sign, ["axis", 0], ["axis", 1]], scope) == operators.compute(sign, left, right)

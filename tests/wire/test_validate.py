"""A coordinator checks everything of a document again: each single thing that is wrong is found, at its path."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire import bounds
from wire.spec import After, SpecDocument, When
from wire.validate import MAX_PROBLEMS, InvalidSpec, validate


def command(**more: Any) -> dict[str, Any]:
    return {"argv": ["true", ["axis", 0], ["dir", "data"]], "script": None, "env": {"A": ["run", "task.id"]}} | more


def good() -> dict[str, Any]:
    phase = {"script": "true", "env": {"N": ["run", "node.id"]}, "lets": {"bucket": "s3://b"}}
    return {
        "format": 1,
        "pools": [{"name": "p", "nodes": 2, "slots": 4, "lost_after_ms": 1000}],
        "jobs": [
            {
                "name": "j",
                "pool": "p",
                "env": {"B": ["dir", "data"]},
                "values": {"day": "2026-11-22"},
                "dirs": [{"name": "data"}],
                "preparation": {"command": phase, "parallel": 2},
                "release": {"command": dict(phase)},
                "groups": [
                    {"name": "a", "axes": [{"names": ["n"], "range": [1, 5, 1]}], "command": command()},
                    {
                        "name": "b",
                        "axes": [{"names": ["os", "py"], "values": [["alpine", "3.12"], ["debian", 3]]}],
                        "command": command(),
                        "after": [{"group": 0}],
                    },
                ],
            }
        ],
    }


def job(document: dict[str, Any]) -> dict[str, Any]:
    return document["jobs"][0]  # type: ignore[no-any-return]


def group(document: dict[str, Any], at: int = 0) -> dict[str, Any]:
    return job(document)["groups"][at]  # type: ignore[no-any-return]


def after(*groups: int, **more: Any) -> list[dict[str, Any]]:
    return [{"group": number, **more} for number in groups]


AXES = [{"names": ["i"], "range": [1, 2, 1]}, {"names": ["k"], "values": ["x", "y"]}]
ELSEWHERE = {"codes": [[1, 1]], "action": "retry", "elsewhere": True}


def paired(document: dict[str, Any], *axes: list[str], **more: Any) -> None:
    """The second group waits for the first, once for each of these lists of axes; both have `i` and `k`."""
    group(document)["axes"] = [*AXES, {"names": ["alone"], "values": [1]}]
    group(document, 1).update(axes=[*AXES, {"names": ["own"], "values": [1]}])
    group(document, 1)["after"] = [{"group": 0, "axes": names, **more} for names in axes]


def arms(document: dict[str, Any], *written: dict[str, Any]) -> None:
    group(document)["command"]["arms"] = list(written)


def test_what_waits_by_value_and_for_any_end_is_taken() -> None:
    document = good()
    paired(document, ["i"], ["k", "i"], [], when="done")
    made = validate(document).jobs[0].groups[1].after
    assert made == [After(0, When.DONE, axes) for axes in (["i"], ["k", "i"], [])]


def test_a_document_of_the_first_releases_is_still_read_as_it_was_meant() -> None:
    document = good()
    group(document, 1)["after"] = [0]
    for old in (validate(document), msgspec.msgpack.decode(msgspec.msgpack.encode(document), type=SpecDocument)):
        assert old.jobs[0].groups[1].after == [After(0)]


def test_a_good_document_becomes_typed() -> None:
    spec = validate(good())
    assert isinstance(spec, SpecDocument)
    assert spec.jobs[0].groups[1].after == [After(0)]
    assert spec.jobs[0].preparation is not None


LONG = "x" * (bounds.MAX_ARGUMENT_BYTES + 1)
A = "job/j/task/a"
WRONG: list[tuple[str, Callable[[dict[str, Any]], object], str]] = [
    ("another format", lambda d: d.update(format=2), ""),
    ("no list of jobs", lambda d: d.update(jobs="x"), ""),
    ("an unknown field", lambda d: job(d).update(extra=1), ""),
    ("a name with a slash", lambda d: d["pools"][0].update(name="../p"), "pool/../p"),
    ("a long name", lambda d: job(d).update(name="j" * 49), f"job/{'j' * 48}…"),
    ("an empty name", lambda d: group(d).update(name=""), "job/j/task/"),
    ("a name of a directory", lambda d: group(d).update(name="tmp"), "job/j/task/tmp"),
    ("a name with a line end", lambda d: group(d).update(name="a\n"), "job/j/task/a\n"),
    ("two jobs of one name", lambda d: d["jobs"].append(good()["jobs"][0]), "job/j"),
    ("two groups of one name", lambda d: group(d, 1).update(name="a"), "job/j/task/a"),
    ("two dirs of one name", lambda d: job(d)["dirs"].append({"name": "data"}), "job/j/dir/data"),
    ("an uppercase dir", lambda d: job(d)["dirs"].append({"name": "Data"}), "job/j/dir/Data"),
    ("a param that tools read", lambda d: job(d)["values"].update(http_proxy="x"), "job/j"),
    ("a param that is too long", lambda d: job(d)["values"].update(x=LONG), "job/j"),
    ("no nodes", lambda d: d["pools"][0].update(nodes=0), "pool/p/nodes"),
    ("too many slots", lambda d: d["pools"][0].update(slots=bounds.MAX_SLOTS + 1), "pool/p/slots"),
    ("a lease that is too short", lambda d: d["pools"][0].update(lost_after_ms=1), "pool/p/lost_after"),
    ("a pool that is no name", lambda d: job(d).update(pool="a b"), "job/j/pool"),
    ("a priority out of range", lambda d: job(d).update(priority=5000), "job/j/priority"),
    ("a timeout of nothing", lambda d: job(d).update(timeout_ms=0), "job/j/timeout"),
    ("a job that stops after none", lambda d: job(d).update(stop_after=0), "job/j/on_failure"),
    ("a negative grace", lambda d: job(d).update(release_grace_ms=-1), "job/j/release_grace"),
    ("parallel none", lambda d: job(d).update(parallel=0), "job/j/parallel"),
    ("prep parallel none", lambda d: job(d)["preparation"].update(parallel=0), "job/j/prep/parallel"),
    ("an env of the system", lambda d: job(d)["env"].update(BATCH_X="1"), "job/j/env/BATCH_X"),
    ("an env that is no name", lambda d: job(d)["env"].update({"A=B": "1"}), "job/j/env/A=B"),
    ("an env that asks for a task", lambda d: job(d)["env"].update(X=["run", "task.id"]), "job/j/env/X"),
    ("an env that asks for an axis", lambda d: job(d)["env"].update(X=["axis", 0]), "job/j/env/X"),
    (
        "a prep that asks for a task",
        lambda d: job(d)["preparation"]["command"]["env"].update(X=["text", ["run", "task.index"]]),
        "job/j/prep/env/X",
    ),
    ("a let that is too long", lambda d: job(d)["release"]["command"].update(lets={"x": LONG}), "job/j/release"),
    ("argv and script", lambda d: group(d)["command"].update(script="true"), A),
    ("neither argv nor script", lambda d: group(d)["command"].update(argv=None), A),
    ("no program", lambda d: group(d)["command"].update(argv=[]), f"{A}/run"),
    ("an empty program", lambda d: group(d)["command"].update(argv=["", "x"]), f"{A}/run"),
    ("an argument too long", lambda d: group(d)["command"].update(argv=["x", LONG]), f"{A}/run"),
    ("a NUL in an argument", lambda d: group(d)["command"].update(argv=["x", "a\0b"]), f"{A}/run"),
    ("too many arguments", lambda d: group(d)["command"].update(argv=["x"] * 2000), f"{A}/run"),
    ("an axis that there is not", lambda d: group(d)["command"].update(argv=["x", ["axis", 1]]), f"{A}/run"),
    ("a dir that there is not", lambda d: group(d)["command"].update(argv=["x", ["dir", "other"]]), f"{A}/run"),
    ("an unknown form", lambda d: group(d)["command"].update(argv=["x", ["eval", "1"]]), f"{A}/run"),
    ("a NUL in a script", lambda d: group(d)["command"].update(argv=None, script="a\0"), f"{A}/script"),
    (
        "a huge script",
        lambda d: group(d)["command"].update(argv=None, script="x" * (bounds.MAX_SCRIPT_BYTES + 1)),
        f"{A}/script",
    ),
    ("negative retries", lambda d: group(d)["command"].update(retries=-1), f"{A}/retries"),
    ("no such signal", lambda d: group(d)["command"].update(stop_signal=0), f"{A}/stop_signal"),
    ("a negative stop grace", lambda d: group(d)["command"].update(stop_grace_ms=-1), f"{A}/stop_grace"),
    ("a keep for ever", lambda d: group(d)["command"].update(keep_ms=10**18), f"{A}/keep"),
    ("a command timeout of 0", lambda d: group(d)["command"].update(timeout_ms=0), f"{A}/timeout"),
    (
        "a backoff that goes down",
        lambda d: group(d)["command"].update(backoff={"first_ms": 10, "cap_ms": 5}),
        f"{A}/backoff",
    ),
    ("slots of nothing", lambda d: group(d).update(slots=0), f"{A}/slots"),
    ("processors of nothing", lambda d: group(d).update(needs={"cpus": 0.0}), f"{A}/needs/cpus"),
    ("processors without number", lambda d: group(d).update(needs={"cpus": float("nan")}), f"{A}/needs/cpus"),
    ("endless processors", lambda d: group(d).update(needs={"cpus": float("inf")}), f"{A}/needs/cpus"),
    ("no memory to speak of", lambda d: group(d).update(needs={"memory_bytes": 1}), f"{A}/needs/memory"),
    ("memory beyond all machines", lambda d: group(d).update(needs={"memory_bytes": 2**60}), f"{A}/needs/memory"),
    ("no disk", lambda d: group(d).update(needs={"disk_bytes": 0}), f"{A}/needs/disk"),
    ("disk beyond all machines", lambda d: group(d).update(needs={"disk_bytes": 2**60}), f"{A}/needs/disk"),
    ("no GPU", lambda d: group(d).update(needs={"gpus": 0}), f"{A}/needs/gpus"),
    ("GPUs beyond all machines", lambda d: group(d).update(needs={"gpus": 5000}), f"{A}/needs/gpus"),
    ("no label", lambda d: group(d).update(needs={"labels": ["a b"]}), f"{A}/needs/labels"),
    ("a label to move cursors", lambda d: group(d).update(needs={"labels": ["a=\x1b[2J"]}), f"{A}/needs/labels"),
    ("many labels", lambda d: group(d).update(needs={"labels": ["a"] * 33}), f"{A}/needs/labels"),
    ("a resource without name", lambda d: group(d).update(needs={"others": {"a b": 1.0}}), f"{A}/needs"),
    ("another way to say gpus", lambda d: group(d).update(needs={"others": {"gpus": 1.0}}), f"{A}/needs"),
    ("nothing of a resource", lambda d: group(d).update(needs={"others": {"x": 0.0}}), f"{A}/needs/x"),
    ("no number of a resource", lambda d: group(d).update(needs={"others": {"x": float("nan")}}), f"{A}/needs/x"),
    (
        "many resources",
        lambda d: group(d).update(needs={"others": {f"x{n}": 1.0 for n in range(33)}}),
        f"{A}/needs",
    ),
    ("a dependency beyond the end", lambda d: group(d).update(after=after(2)), f"{A}/after"),
    ("a negative dependency", lambda d: group(d).update(after=after(-1)), f"{A}/after"),
    ("a dependency twice", lambda d: group(d, 1).update(after=after(0, 0)), "job/j/task/b/after"),
    ("the same pair twice", lambda d: paired(d, ["i", "k"], ["k", "i"]), "job/j/task/b/after"),
    ("an axis twice", lambda d: paired(d, ["i", "i"]), "job/j/task/b/after"),
    ("an axis that the other has not", lambda d: paired(d, ["own"]), "job/j/task/b/after"),
    ("an axis that only the other has", lambda d: paired(d, ["alone"]), "job/j/task/b/after"),
    ("too many pairs", lambda d: paired(d, *[["i"]] * 101), "job/j/task/b/after"),
    (
        "a failure that counts nowhere",
        lambda d: (group(d).update(optional=True), paired(d, [], when="failed")),
        "job/j/task/b/after",
    ),
    ("a preparation elsewhere", lambda d: job(d)["preparation"]["command"].update(arms=[ELSEWHERE]), "job/j/prep/exit"),
    ("a failure elsewhere", lambda d: arms(d, {**ELSEWHERE, "action": "fail"}), f"{A}/exit"),
    ("a cycle", lambda d: group(d).update(after=after(1)), f"{A}/after"),
    ("a task that waits for itself", lambda d: group(d).update(after=after(0)), f"{A}/after"),
    ("a task that waits for its own", lambda d: group(d).update(after=after(0, axes=["i"])), f"{A}/after"),
    ("a range and values", lambda d: group(d)["axes"][0].update(values=[1]), A),
    ("an axis of nothing", lambda d: group(d).update(axes=[{"names": ["n"]}]), A),
    ("a step of 0", lambda d: group(d)["axes"][0].update(range=[1, 5, 0]), A),
    ("an empty range", lambda d: group(d)["axes"][0].update(range=[5, 1, 1]), A),
    ("a range of too many", lambda d: group(d)["axes"][0].update(range=[1, 10**9, 1]), A),
    ("a range beyond 64 bits", lambda d: group(d)["axes"][0].update(range=[1, 10**30, 10**30]), A),
    ("an empty list", lambda d: group(d).update(axes=[{"names": ["n"], "values": []}]), A),
    ("a value twice", lambda d: group(d).update(axes=[{"names": ["n"], "values": [1, "1"]}]), A),
    ("a value that is a list", lambda d: group(d).update(axes=[{"names": ["n"], "values": [["x"]]}]), A),
    ("a null value", lambda d: group(d).update(axes=[{"names": ["n"], "values": [None]}]), A),
    ("a row that is too short", lambda d: group(d, 1)["axes"][0].update(values=[["x"]]), "job/j/task/b"),
    ("a value that is too long", lambda d: group(d).update(axes=[{"names": ["n"], "values": [LONG]}]), A),
    ("an axis without a name", lambda d: group(d)["axes"][0].update(names=[]), A),
    ("two axes of one name", lambda d: group(d)["axes"].append({"names": ["n"], "range": [1, 2, 1]}), A),
    ("an axis named as a dir", lambda d: group(d)["axes"][0].update(names=["data"]), A),
    ("an axis named as a param", lambda d: group(d)["axes"][0].update(names=["day"]), A),
    ("an axis in uppercase", lambda d: group(d)["axes"][0].update(names=["N"]), A),
    (
        "an arm that matches nothing",
        lambda d: arms(d, {"action": "fail"}),
        f"{A}/exit",
    ),
    ("a code too high", lambda d: arms(d, {"codes": [[0, 256]], "action": "fail"}), f"{A}/exit"),
    ("a negative code", lambda d: arms(d, {"codes": [[-1, 2]], "action": "fail"}), f"{A}/exit"),
    ("codes backwards", lambda d: arms(d, {"codes": [[5, 4]], "action": "fail"}), f"{A}/exit"),
    ("no signal", lambda d: arms(d, {"signals": [0], "action": "fail"}), f"{A}/exit/signal"),
    ("a signal too high", lambda d: arms(d, {"signals": [65], "action": "fail"}), f"{A}/exit/signal"),
    ("an unknown cause", lambda d: arms(d, {"causes": ["output"], "action": "fail"}), ""),
    ("an unknown action", lambda d: arms(d, {"causes": ["oom"], "action": "ignore"}), ""),
    ("too many patterns", lambda d: arms(d, {"codes": [[1, 1]] * 101, "action": "fail"}), f"{A}/exit"),
    ("too many arms", lambda d: arms(d, *[{"codes": [[1, 1]], "action": "fail"}] * 101), f"{A}/exit"),
    ("no times", lambda d: arms(d, {"causes": ["oom"], "action": "retry", "times": 0}), f"{A}/exit/times"),
    (
        "times out of range",
        lambda d: arms(d, {"causes": ["oom"], "action": "retry", "times": bounds.MAX_RETRIES + 1}),
        f"{A}/exit/times",
    ),
    ("times without a retry", lambda d: arms(d, {"causes": ["oom"], "action": "fail", "times": 1}), f"{A}/exit"),
    (
        "a backoff without a retry",
        lambda d: arms(d, {"causes": ["oom"], "action": "stop", "backoff": {"first_ms": 1, "cap_ms": 2}}),
        f"{A}/exit",
    ),
    (
        "a backoff of an arm that shrinks",
        lambda d: arms(d, {"causes": ["oom"], "action": "retry", "backoff": {"first_ms": 9, "cap_ms": 2}}),
        f"{A}/exit/backoff",
    ),
    (
        "a product of too many",
        lambda d: group(d).update(axes=[{"names": [n], "range": [1, 10**5, 1]} for n in ("n", "m")]),
        A,
    ),
]


@pytest.mark.parametrize(("spoil", "path"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_each_single_mistake_is_found_at_its_path(spoil: Callable[[dict[str, Any]], object], path: str) -> None:
    document = good()
    spoil(document)
    with pytest.raises(InvalidSpec) as refused:
        validate(document)
    assert path in [where for where, _ in refused.value.problems], refused.value.problems
    assert str(refused.value)


def test_arms_of_exit_may_go_up_to_every_bound() -> None:
    document = good()
    full = {"codes": [[0, 255]] * 97, "signals": [1, 64], "causes": ["else"], "action": "retry"}
    arms(document, *[full | {"times": bounds.MAX_RETRIES, "backoff": {"first_ms": 1, "cap_ms": 1}}] * bounds.MAX_ARMS)
    assert len(validate(document).jobs[0].groups[0].command.arms) == bounds.MAX_ARMS


@pytest.mark.parametrize("name", ["LD_PRELOAD", "PATH", "HOME", "IFS", "BASH_FUNC_ls", "PYTHONSTARTUP", "RUBYOPT"])
def test_t7_a_variable_that_steers_loaders_is_refused_for_an_elevated_command_whoever_compiled_it(name: str) -> None:
    document = good()
    for command in (job(document)["preparation"]["command"], group(document)["command"]):
        command["env"] = {"FINE": "1", name: "/tmp/x"}
    job(document)["env"] = {name: "/tmp/y"}
    validate(document)
    job(document)["preparation"]["command"]["elevated"] = group(document)["command"]["elevated"] = True
    with pytest.raises(InvalidSpec) as refused:
        validate(document)
    assert [path for path, _ in refused.value.problems] == [f"job/j/prep/env/{name}", f"job/j/task/a/env/{name}"]


def test_many_groups_in_a_job_may_not_have_more_tasks_together_than_one_may() -> None:
    document = good()
    for at in range(2, 4):
        axes = [{"names": ["m"], "range": [1, 60_000_000, 1]}]
        job(document)["groups"].append({"name": f"g{at}", "axes": axes, "command": {"argv": ["x"]}})
    with pytest.raises(InvalidSpec, match="120000007 tasks"):
        validate(document)


def test_a_document_of_mistakes_gives_a_bounded_list_of_complaints() -> None:
    document = good()
    job(document)["groups"] = [
        {"name": f"g {n}", "command": {"argv": [], "timeout_ms": 0}, "slots": 0} for n in range(200)
    ]
    with pytest.raises(InvalidSpec) as refused:
        validate(document)
    assert len(refused.value.problems) == MAX_PROBLEMS


def test_a_long_chain_of_groups_is_no_cycle_and_no_crash() -> None:
    document = good()
    job(document)["groups"] = [
        {"name": f"g{n}", "command": {"argv": ["x"]}, "after": after(n + 1) if n < 999 else []} for n in range(1000)
    ]
    validate(document)
    job(document)["groups"][999]["after"] = after(0)
    with pytest.raises(InvalidSpec, match="cycle"):
        validate(document)


leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=5), st.binary(max_size=3)
)
anything = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, part in inside for place in places(part, (*path, key)))]


PLACES = places(good())[1:]


@settings(max_examples=300)
@given(st.sampled_from(PLACES), anything)
def test_anything_in_the_place_of_anything_is_taken_or_refused_in_one_way(place: tuple[Any, ...], value: Any) -> None:
    document = copy.deepcopy(good())
    target = document
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    try:
        validate(document)
    except InvalidSpec as refused:
        assert refused.problems

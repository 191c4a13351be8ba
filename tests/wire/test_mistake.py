"""A mistake is told without the values it was made with."""

from __future__ import annotations

from pathlib import Path

from wire.mistake import culprit, innermost, story, write_down

SECRET = "s3cr3t"


def raised(make_cause: bool) -> BaseException:
    try:
        try:
            {}[SECRET]
        except KeyError as error:
            if make_cause:
                raise ExceptionGroup(SECRET, [ValueError(SECRET)]) from error
            raise
    except (KeyError, ExceptionGroup) as error:
        return error
    raise AssertionError("nothing was raised")


def test_t16_a_daemon_names_the_place_of_its_mistake_and_no_value() -> None:
    said = culprit(raised(make_cause=False))
    assert said.startswith("KeyError at test_mistake.py:")
    assert SECRET not in said


def test_t16_the_story_of_a_mistake_holds_its_causes_and_no_value() -> None:
    told = story(raised(make_cause=True))
    assert SECRET not in told
    assert [
        name
        for name in ("KeyError", "which led to", "ExceptionGroup", "gathered, 1:", "ValueError")
        if name not in told
    ] == []
    assert "test_mistake.py" in told


def test_an_error_that_was_never_raised_has_no_place() -> None:
    assert culprit(KeyError(SECRET)) == "KeyError"


def test_of_groups_the_first_error_counts() -> None:
    first = KeyError("a")
    assert innermost(ExceptionGroup("g", [ExceptionGroup("h", [first]), ValueError("b")])) is first
    assert innermost(first) is first


def test_where_the_story_is_stands_in_the_sentence_and_so_does_why_it_is_nowhere(tmp_path: Path) -> None:
    error = raised(make_cause=False)
    assert write_down(error, tmp_path / "crash.txt") == f"the details are in {tmp_path / 'crash.txt'}"
    assert (tmp_path / "crash.txt").read_text() == story(error)
    missing = tmp_path / "no" / "crash.txt"
    assert write_down(error, missing) == f"the details could not be written to {missing}: No such file or directory"

"""What people see: words, tables, verdicts, results and progress, all from plain documents."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator import render
from coordinator.cli import progress, result, words
from coordinator.cli.verdict import judge
from coordinator.durations import seconds_of
from coordinator.render import Column
from tests.coordinator.standin import a_job, a_node_job, a_phase, a_task, counts

NOON = render.wall("2026-11-22T12:00:00Z")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.0s"),
        (0.34, "0.3s"),
        (9.96, "10s"),
        (59.4, "59s"),
        (59.6, "1m00s"),
        (200, "3m20s"),
        (7500, "2h05m"),
        (86_400 * 3 + 3600 * 4 + 59, "3d4h"),
        (-5, "0.0s"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds: float, shown: str) -> None:
    assert render.duration(seconds) == shown


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30.0),
        ("10m", 600.0),
        ("1h30m", 5400.0),
        ("250ms", 0.25),
        ("1m250ms", 60.25),
        ("7d", 604_800.0),
        ("1d2h3m4s5ms", 93_784.005),
        ("0s", 0.0),
    ],
)
def test_durations_are_written_as_in_the_language(text: str, seconds: float) -> None:
    assert seconds_of(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "10", "m", "1.5h", "-1s", "10 m", "1s1h", "5m5m", "٣s", "1h30"])
def test_what_is_no_duration_is_none(text: str) -> None:
    assert seconds_of(text) is None


@given(st.floats(min_value=0, max_value=253_402_300_799))
def test_every_time_reads_as_the_calendar_says(seconds: float) -> None:
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert render.wall(text) == pytest.approx(datetime.fromisoformat(text).timestamp(), abs=1e-3)


@pytest.mark.parametrize("text", [None, "", "yesterday", "2026-11-22", "2026-11-22T12:00:00+02:00", 17])
def test_what_is_no_time_in_utc_has_no_age(text: object) -> None:
    assert render.age(text, datetime.now(UTC).timestamp()) == "-"


def test_a_table_is_aligned_and_unknown_cells_are_a_dash() -> None:
    columns = (Column("NAME"), Column("N", right=True), Column("WHY"))
    assert render.table(columns, [["a", 1, None], ["longer", 1000, ""], ["b", None, "text"]]) == [
        "NAME       N  WHY",
        "a          1  -",
        "longer  1000  -",
        "b          -  text",
    ]


def test_a_table_without_rows_is_its_header() -> None:
    assert render.table((Column("A"), Column("B")), []) == ["A  B"]


def test_only_texts_are_cut_to_fit_a_terminal() -> None:
    columns = (Column("ID"), Column("WHY", flexible=True))
    lines = render.table(columns, [["x" * 30, "y" * 100]], width=60)
    assert [len(line) for line in lines] == [35, 60]
    assert lines[1].startswith("x" * 30 + "  yyy")
    assert lines[1].endswith("…")


def test_a_table_never_cuts_an_id_even_where_nothing_fits() -> None:
    lines = render.table((Column("ID"), Column("WHY", flexible=True)), [["x" * 90, "because"]], width=40)
    assert "x" * 90 in lines[1]
    assert "because" in lines[1]


def test_control_characters_of_a_task_never_reach_a_table() -> None:
    lines = render.table((Column("WHY"),), [["\x1b[2J\x07evil\nline"]])
    assert lines[1] == "\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}evil line"


def test_colour_does_not_move_columns() -> None:
    columns = (Column("STATE"), Column("N", right=True))
    plain = render.table(columns, [["idle", 1], ["lost", 22]])
    coloured = render.table(columns, [["idle", 1], ["lost", 22]], colour=True)
    assert coloured != plain
    stripped = []
    for line in coloured:
        for code in ("\x1b[0m", *(f"\x1b[{colour.value}m" for colour in render.Colour)):
            line = line.replace(code, "")
        stripped.append(line)
    assert stripped == plain


def test_sizes_and_counts_are_for_people() -> None:
    assert [render.size(n) for n in (0, 1023, 1024, 1536, 1024**3, 1024**7)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 KiB",
        "1.0 GiB",
        "1048576.0 PiB",
    ]
    assert render.count_of(1, "task") == "1 task"
    assert render.count_of(20_000, "task") == "20,000 tasks"
    assert render.joined(["a", "b", "c"]) == "a, b or c"


def test_a_job_is_told_in_one_sentence() -> None:
    assert words.job_sentence(a_job(), 0) == "daily-3: success, 8 tasks: 8 succeeded in 12s"
    running = a_job(
        state="active", result=None, completed_at=None, end_reason=None, tasks=counts(active=3, running=2, failed=1)
    )
    now = render.wall("2026-11-22T09:01:00Z") or 0
    assert words.job_sentence(running, now) == "daily-3: active, 6 tasks: 3 active, 2 running, 1 failed in 1m00s"
    ended = a_job(result="cancelled", end_reason="UserTerminate", tasks=counts(succeeded=1, cancelled=7))
    assert (
        words.job_sentence(ended, 0) == "daily-3: cancelled, 8 tasks: 1 succeeded, 7 cancelled in 12s (UserTerminate)"
    )


def test_a_row_tells_how_a_command_ended() -> None:
    assert words.ending(3, None) == "exit 3"
    assert words.ending(None, 9) == "SIGKILL"
    assert words.ending(None, 35) == "signal 35"
    assert words.ending(None, None) is None
    assert words.phase_word(a_phase(state="failed", exit_code=7, attempts=3)) == "failed (exit 7, try 3)"
    assert words.phase_word(a_phase()) == "succeeded"
    assert words.phase_word(None) is None


def test_what_is_left_of_a_job_on_a_node_is_said_in_its_row() -> None:
    clean = {"processes": 0, "files": [], "uid": None, "cgroups": [], "mounts": []}
    assert words.what_is_left(a_node_job()) is None
    assert words.what_is_left(a_node_job(clean=clean)) is None
    assert words.job_node_row(a_node_job(clean=clean))[-1] == ""
    left = {"processes": 1, "files": ["a", "b"], "uid": 1879048200, "cgroups": ["c"], "mounts": ["/m", "/n"]}
    words_of = "left there: 1 process, 2 files, user 1879048200, 1 control group, 2 mounts"
    assert words.job_node_row(a_node_job(clean=left))[-1] == words_of
    failed = a_phase(state="failed", reason="it hung")
    assert words.job_node_row(a_node_job(release=failed, clean=left))[-1] == f"it hung; {words_of}"


def test_why_a_job_waits_stands_in_its_lines() -> None:
    why = "no node of pool `p` can take it: no elevated commands there (1 node)"
    assert f"Waits:       {why}" in words.job_lines(a_job(waits=why), 0, False)
    assert not any(line.startswith("Waits") for line in words.job_lines(a_job(waits=None), 0, False))


def test_a_job_that_went_well_has_nothing_against_it() -> None:
    verdict = judge(a_job(), [a_node_job()])
    assert (verdict.problems, verdict.warnings) == ([], [])


def test_a_failed_preparation_elsewhere_is_only_a_warning() -> None:
    barred = a_node_job(node="risk-2", state="barred", prep=a_phase(state="failed", exit_code=1))
    verdict = judge(a_job(), [a_node_job(), barred])
    assert verdict.problems == []
    assert verdict.warnings == ["the preparation of daily-3 failed on risk-2: exit 1"]


@pytest.mark.parametrize(
    ("job", "node", "problem"),
    [
        (
            a_job(result="failure", tasks=counts(succeeded=7, failed=1)),
            a_node_job(),
            "1 task of daily-3 failed",
        ),
        (
            a_job(result="cancelled", end_reason="MaxWallClockTimeExpiry", tasks=counts(cancelled=2)),
            a_node_job(),
            "2 tasks of daily-3 were cancelled: MaxWallClockTimeExpiry",
        ),
        (
            a_job(result="failure", release={"owed": 0, "succeeded": 0, "failed": 1, "unreached": 0, "waived": 0}),
            a_node_job(release=a_phase(state="failed", exit_code=4)),
            "the release of daily-3 on risk-1 failed: exit 4",
        ),
        (
            a_job(result="failure", release={"owed": 0, "succeeded": 0, "failed": 0, "unreached": 2, "waived": 0}),
            a_node_job(release=None),
            "2 releases of daily-3 could not be run: out of contact",
        ),
        (
            a_job(result="failure", end_reason="NoEligibleNodes", tasks=counts()),
            a_node_job(),
            "daily-3 ended as failure: NoEligibleNodes",
        ),
        (
            a_job(state="terminating", result=None),
            a_node_job(),
            "daily-3 is terminating",
        ),
    ],
)
def test_what_did_not_go_well_is_said(job: dict, node: dict, problem: str) -> None:
    assert problem in judge(job, [node]).problems


def test_waiting_for_tasks_only_does_not_ask_for_the_release() -> None:
    still_open = a_job(state="active", result=None, completed_at=None, end_reason=None)
    still_open["release"]["owed"] = 2
    assert judge(still_open, [], tasks_only=True).problems == []
    assert judge({**still_open, "tasks": counts(succeeded=7, failed=1)}, [], tasks_only=True).problems == [
        "1 task of daily-3 failed"
    ]


SAMPLE = """\
Contents of shared/job_prep_and_release.txt on demo-1:
-------------------------------------------
demo-1 tasks:
  hello-1
  hello-4
"""


def test_the_sample_is_printed_as_it_is_documented() -> None:
    nodes = [
        a_node_job(node="demo-1", release=a_phase(stdout_tail=SAMPLE)),
        a_node_job(node="demo-2", release=a_phase(stdout_tail=SAMPLE.replace("demo-1", "demo-2"))),
    ]
    text = "\n".join(result.rendered([result.JobResult(a_job(), nodes)], colour=False, printable=False))
    for node in ("demo-1", "demo-2"):
        block = SAMPLE.replace("demo-1", node)
        assert f"{block}{node}:\n  Prep task exit code:    0\n  Release task exit code: 0" in text


def test_a_release_without_a_block_and_a_job_without_preparation_are_told_so() -> None:
    node = a_node_job(prep=None, release=a_phase(exit_code=None))
    lines = result.rendered([result.JobResult(a_job(), [node])], colour=False, printable=False)
    assert lines[-2:] == ["risk-1:", "  Release task exit code: none (the agent's own clean-up)"]


def test_a_release_that_failed_shows_the_end_of_its_stderr() -> None:
    node = a_node_job(release=a_phase(state="failed", exit_code=4, stderr_tail="one\ntwo\n"))
    lines = result.rendered([result.JobResult(a_job(), [node])], colour=False, printable=True)
    assert lines[-3:] == ["  Release task exit code: 4", "    one", "    two"]


def test_failed_tasks_are_shown_with_reason_and_last_lines() -> None:
    failed = a_task(result="failure", exit_code=3, attempts=2, reason="exit code 3")
    shown = result.JobResult(
        a_job(result="failure", tasks=counts(failed=4)), [], failures=[result.FailedTask(failed, ["boom"])]
    )
    lines = result.rendered([shown], colour=False, printable=False)
    assert lines[2:] == [
        "Failed tasks:",
        "  price[17,fx] on risk-1: exit code 3 after 2 attempts",
        "    boom",
        "  and 3 more",
    ]


def test_escape_sequences_of_a_release_act_on_no_terminal_but_stay_in_a_file() -> None:
    shown = [result.JobResult(a_job(), [a_node_job(release=a_phase(stdout_tail="\x1b[31mred\n"))])]
    assert "\x1b" not in "".join(result.rendered(shown, colour=False, printable=True))
    assert "\x1b[31mred" in result.rendered(shown, colour=False, printable=False)


def picture(*jobs: dict) -> progress.Picture:
    return progress.Picture(list(jobs), [])


def test_progress_is_a_line_a_job_and_one_for_its_nodes() -> None:
    job = a_job(
        state="active",
        result=None,
        completed_at=None,
        tasks=counts(succeeded=4, running=2, active=2),
        node_states={"prepared": 1, "preparing": 1},
    )
    now = render.wall("2026-11-22T09:00:05Z") or 0
    assert progress.drawn(picture(job), now, 80, colour=False) == [
        "daily-3  active      ██████████░░░░░░░░░░ 4/8  2 running  5.0s",
        "         nodes: 1 preparing, 1 running",
    ]


def test_progress_fits_a_narrow_terminal() -> None:
    job = a_job(id="a-rather-long-name-of-a-job-12", state="active", tasks=counts(running=2, failed=6), node_states={})
    for width in (40, 60, 80, 120):
        assert all(len(line) <= width for line in progress.drawn(picture(job), NOON or 0, width, colour=False))


def test_a_bar_is_full_only_when_all_is_done() -> None:
    assert progress.bar(999_999, 1_000_000, 20).count("█") == 19
    assert progress.bar(0, 0, 4) == "████"


def test_changes_are_told_once() -> None:
    begun = a_job(state="active", result=None, end_reason=None, tasks=counts(active=8), nodes=[])
    half = {**begun, "tasks": counts(succeeded=4, active=4), "nodes": [a_node_job(state="prepared")]}
    over = {**a_job(), "nodes": [a_node_job()]}
    assert progress.changes(None, picture(begun)) == ["daily-3: submitted, 8 tasks"]
    assert progress.changes(picture(begun), picture(half)) == [
        "daily-3: prepared on risk-1",
        "daily-3: 4 of 8 tasks done: 4 succeeded",
    ]
    assert progress.changes(picture(half), picture(half)) == []
    assert progress.changes(picture(half), picture(over)) == [
        "daily-3: released on risk-1",
        "daily-3: success, 8 tasks: 8 succeeded in 12s",
    ]


def test_changes_are_told_in_the_order_in_which_they_came() -> None:
    """A job is submitted before its nodes prepare, ends before they release, and is over when they have."""
    preparing = a_job(state="active", result=None, tasks=counts(active=8), nodes=[a_node_job(state="preparing")])
    ending = {**preparing, "state": "terminating", "end_reason": "why", "nodes": [a_node_job(state="releasing")]}
    over = {**a_job(), "nodes": [a_node_job()]}
    assert progress.changes(None, picture(preparing)) == ["daily-3: submitted, 8 tasks", "daily-3: preparing on risk-1"]
    told = progress.changes(picture(preparing), picture(ending))
    assert told == ["daily-3: terminating, why", "daily-3: releasing on risk-1"]
    assert [line.split(":")[1].split()[0] for line in progress.changes(None, picture(over))] == [
        "submitted,", "released", "success,",
    ]  # fmt: skip


def test_failures_of_what_is_optional_and_skips_by_their_own_condition_are_no_problem() -> None:
    optional = a_job(tasks=counts(succeeded=7, failed=2, skipped=3), optional_failed=2)
    assert judge(optional, [a_node_job()]).problems == []
    still_open = {**optional, "state": "active", "result": None}
    assert judge(still_open, [], tasks_only=True).problems == []
    one_counts = a_job(result="failure", tasks=counts(succeeded=7, failed=3, skipped=3), optional_failed=2)
    assert judge(one_counts, [a_node_job()]).problems == ["1 task of daily-3 failed", "3 tasks of daily-3 were skipped"]


def test_a_table_of_wide_letters_stands_in_columns_of_the_terminal_and_is_cut_there() -> None:
    rows = [("a[日本語]", "日本語日本語"), ("a[x]", "plain"), ("a[e\N{COMBINING ACUTE ACCENT}]", "y")]
    columns = (Column("TASK"), Column("REASON", flexible=True))
    assert render.table(columns, rows) == [
        "TASK       REASON", "a[日本語]  日本語日本語", "a[x]       plain", "a[e\N{COMBINING ACUTE ACCENT}]       y",
    ]  # fmt: skip
    assert render.shorten("日本語日本語", 8) == "日本語…"

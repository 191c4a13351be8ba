"""What commands see: exactly the documented environment, built from nothing, and every text as it was written."""

from __future__ import annotations

import msgspec
import pytest

from agentd.environment import TaskTexts, phase_template, scripts_of
from agentd.model import Grant, Job, Round
from agentd.records import Verdict
from tests.agentd.node import CONFIG, group, job_spec, preparation, release
from wire.messages import JobBody, Phase
from wire.spec import AxisSpec, Command, DirSpec, GroupSpec, JobSpec, Preparation, Release
from wire.template import TemplateError

NODE = {
    "BATCH_POOL_ID": "p",
    "BATCH_NODE_ID": "p-1",
    "BATCH_NODE_ROOT_DIR": "/node",
    "BATCH_NODE_SHARED_DIR": "/node/shared",
    "BATCH_NODE_STARTUP_DIR": "/node/startup",
    "AZ_BATCH_POOL_ID": "p",
    "AZ_BATCH_NODE_ID": "p-1",
    "AZ_BATCH_NODE_ROOT_DIR": "/node",
    "AZ_BATCH_NODE_SHARED_DIR": "/node/shared",
    "AZ_BATCH_NODE_STARTUP_DIR": "/node/startup",
    "AZ_BATCH_NODE_IS_DEDICATED": "true",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/node/workitems/j-1/home",
    "TMPDIR": "/node/workitems/j-1/tmp",
    "BATCH_JOB_ID": "j-1",
    "AZ_BATCH_JOB_ID": "j-1",
    "BATCH_JOB_NAME": "j",
    "BATCH_JOB_DIR": "/node/workitems/j-1",
}
AT_PREPARATION = {
    "BATCH_JOB_PREP_DIR": "/node/workitems/j-1/jobpreparation",
    "BATCH_JOB_PREP_WORKING_DIR": "/node/workitems/j-1/jobpreparation/wd",
    "AZ_BATCH_JOB_PREP_DIR": "/node/workitems/j-1/jobpreparation",
    "AZ_BATCH_JOB_PREP_WORKING_DIR": "/node/workitems/j-1/jobpreparation/wd",
}


def job(spec: JobSpec) -> Job:
    return Job(JobBody("j-1", "me", spec))


def grant(first: int = 0, *, attempt: int = 1, group: int = 0) -> Grant:
    return Grant(1, "j-1", 1, group, first, 5, 1, attempt, bytearray(b"\1" * 5), 5)


def command_of(spec: JobSpec, index: int = 0, *, attempt: int = 1, config=CONFIG) -> tuple[list[str], dict[str, str]]:
    """argv and environment of a task as its keeper will put them together."""
    template, values, _ = TaskTexts(config, job(spec), 0, 1).item(grant(index, attempt=attempt), 0, 3)
    filled = [values[part] if isinstance(part, int) else part for part in template.argv]
    return filled, {name: values[part] if isinstance(part, int) else part for name, part in template.env.items()}


def test_the_environment_of_a_task_is_exactly_this() -> None:
    spec = job_spec(
        GroupSpec(
            name="price",
            axes=[AxisSpec(["scenario"], (1, 9, 1)), AxisSpec(["desk"], values=["fx", "rates"])],
            command=Command(argv=["x"], env={"SEED": ["text", "s", ["axis", 0]]}, lets={"bucket": "b"}),
            slots=2,
        ),
        env={"OMP_NUM_THREADS": "1"},
        values={"date": "2026-11-22"},
        dirs=[DirSpec("market")],
        preparation=preparation(),
    )
    _, env = command_of(spec, 3, attempt=2)
    where = "/node/workitems/j-1/price-2-rates/attempt-2"
    assert env == {
        **NODE,
        **AT_PREPARATION,
        "OMP_NUM_THREADS": "1",
        "SEED": "s2",
        "bucket": "b",
        "date": "2026-11-22",
        "market": "/node/workitems/j-1/dirs/market",
        "scenario": "2",
        "desk": "rates",
        "BATCH_GROUP": "price",
        "BATCH_TASK_ID": "price-2-rates",
        "AZ_BATCH_TASK_ID": "price-2-rates",
        "BATCH_TASK_INDEX": "3",
        "BATCH_TASK_DIR": where,
        "AZ_BATCH_TASK_DIR": where,
        "BATCH_TASK_WORKING_DIR": where + "/wd",
        "AZ_BATCH_TASK_WORKING_DIR": where + "/wd",
        "BATCH_TASK_SLOTS": "2",
        "BATCH_SLOT": "3",
        "BATCH_ATTEMPT": "2",
    }


def test_the_environment_of_a_preparation_is_exactly_this() -> None:
    template = phase_template(
        CONFIG, job(job_spec(preparation=preparation())), Round("j-1", 1), Phase.PREPARATION, 1, 0
    )
    where = "/node/workitems/j-1/jobpreparation"
    assert template.env == {
        **NODE,
        "BATCH_TASK_ID": "jobpreparation",
        "AZ_BATCH_TASK_ID": "jobpreparation",
        "BATCH_TASK_DIR": where,
        "AZ_BATCH_TASK_DIR": where,
        "BATCH_TASK_WORKING_DIR": where + "/wd",
        "AZ_BATCH_TASK_WORKING_DIR": where + "/wd",
        "BATCH_ATTEMPT": "1",
        "BATCH_REBOOTED": "false",
    }


def test_a_release_sees_where_the_preparation_ran_and_how_it_ended() -> None:
    held = Round("j-1", 1, release_reason="NodeDrained")
    held.prep.attempts, held.prep.verdict, held.prep.exit_code = 2, Verdict.FAILED, 9
    spec = job_spec(preparation=preparation(), release=release())
    env = phase_template(CONFIG, job(spec), held, Phase.RELEASE, 1, 12).env
    assert env["BATCH_JOB_PREP_DIR"] == "/node/workitems/j-1/jobpreparation/attempt-2"
    assert env["AZ_BATCH_JOB_PREP_WORKING_DIR"] == "/node/workitems/j-1/jobpreparation/attempt-2/wd"
    shown = {name: env[name] for name in env if name.startswith(("BATCH_PREP_", "BATCH_TASKS", "BATCH_END"))}
    assert shown == {
        "BATCH_PREP_STATE": "failed",
        "BATCH_PREP_EXIT_CODE": "9",
        "BATCH_TASKS_RUN": "12",
        "BATCH_END_REASON": "NodeDrained",
    }


def test_without_a_preparation_nobody_is_told_where_it_ran() -> None:
    _, env = command_of(job_spec())
    assert not [name for name in env if "PREP" in name]


def test_what_the_user_says_stands_over_what_is_given_but_not_over_what_is_documented() -> None:
    command = Command(argv=["x"], env={"PATH": "/mine", "date": "own", "BATCH_JOB_ID": "other"})
    _, env = command_of(job_spec(group(command=command), values={"date": "given"}))
    assert (env["PATH"], env["date"], env["BATCH_JOB_ID"]) == ("/mine", "own", "j-1")


def test_null_takes_a_variable_away() -> None:
    spec = job_spec(group(command=Command(argv=["x"], env={"A": None, "LANG": None})), env={"A": "job", "B": None})
    _, env = command_of(spec)
    assert not {"A", "B", "LANG"} & env.keys()


def test_the_site_may_add_to_path_and_environment() -> None:
    config = msgspec.structs.replace(CONFIG, path_additions=("/opt/tools",), site_env={"HTTP_PROXY": "http://p"})
    _, env = command_of(job_spec(), config=config)
    assert env["PATH"].startswith("/opt/tools:/usr/local/sbin:")
    assert env["HTTP_PROXY"] == "http://p"


TEXTS = ["", " ", "a b", "'", '"', "$(rm -rf /)", "`x`", "\n\t\\", "ü€😀", "x" * 100_000, "-n", "*", "{}", "%s"]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_every_text_arrives_as_it_was_written(text: str) -> None:
    axes = [AxisSpec(["v"], values=["other", text])]
    command = Command(argv=["x", text, ["axis", 0], ["text", "<", ["axis", 0], ">"]], env={"A": text, "B": ["axis", 0]})
    argv, env = command_of(job_spec(GroupSpec(name="t", axes=axes, command=command), values={"c": text}), 1)
    assert argv[1:] == [text, text, f"<{text}>"]
    assert (env["A"], env["B"], env["c"], env["v"]) == (text, text, text, text)


def test_a_null_on_an_axis_unsets_its_variable_for_that_task_only() -> None:
    spec = job_spec(GroupSpec(name="t", axes=[AxisSpec(["v"], values=[None, "a"])], command=Command(argv=["x"])))
    assert "v" not in command_of(spec, 0)[1]
    assert command_of(spec, 1)[1]["v"] == "a"


def test_what_is_known_only_when_it_runs_is_filled_in() -> None:
    names = ["job.id", "job.name", "task.id", "task.index", "node.id", "attempt"]
    command = Command(argv=["x", *(["run", name] for name in names), ["dir", "d"]])
    argv, _ = command_of(job_spec(group(command=command), dirs=[DirSpec("d")]), 4, attempt=3)
    assert argv[1:] == ["j-1", "j", "t-5", "4", "p-1", "3", "/node/workitems/j-1/dirs/d"]


def test_only_what_differs_travels_with_each_task() -> None:
    texts = TaskTexts(CONFIG, job(job_spec(values={"big": "x" * 100_000})), 0, 0)
    one, values, _ = texts.item(grant(0), 0, 0)
    two, _, _ = texts.item(grant(0), 1, 0)
    assert one is two
    assert sum(map(len, values)) < 200


def test_a_text_without_a_value_fails_its_own_task_only() -> None:
    command = Command(argv=["x", ["op", "//", 1, ["op", "-", ["axis", 0], 2]]])
    texts = TaskTexts(CONFIG, job(job_spec(group(command=command))), 0, 0)
    texts.item(grant(0), 0, 0)
    with pytest.raises(TemplateError):
        texts.item(grant(0), 1, 0)


def test_a_script_is_a_file_run_by_bash_or_by_its_first_line() -> None:
    spec = JobSpec(
        name="j", pool="p", preparation=Preparation(command=Command(script="echo 1")),
        release=Release(command=Command(script="#!/usr/bin/env python3\nprint(1)\n")),
        groups=[group(command=Command(script="  echo 2"), name="a")],
    )  # fmt: skip
    held, scripts = job(spec), "/node/scripts/j-1"
    assert scripts_of(held) == {
        "task.a": "  echo 2", "jobpreparation": "echo 1", "jobrelease": "#!/usr/bin/env python3\nprint(1)\n",
    }  # fmt: skip
    prepare = phase_template(CONFIG, held, Round("j-1", 1), Phase.PREPARATION, 1, 0)
    clean = phase_template(CONFIG, held, Round("j-1", 1), Phase.RELEASE, 1, 0)
    assert prepare.argv == ["bash", "-euo", "pipefail", f"{scripts}/jobpreparation"]
    assert clean.argv == [f"{scripts}/jobrelease"]
    assert command_of(spec)[0] == ["bash", "-euo", "pipefail", f"{scripts}/task.a"]

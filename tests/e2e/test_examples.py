"""The examples do what they say, run as their first comment says: `coordinator run examples/NAME.batch`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent

SAYS = {
    "pipeline.batch": "preparation succeeded; 4 parts counted; the job ended as AllTasksComplete",
    "files.batch": "is tidy",
    "needs.batch": "4 parts were fitted",
    "service.batch": "the service is gone",
    "start.batch": "tasks found the tools of hello from their node",
    "sweep.batch": "",
}
"""What the release of an example prints."""


def jobs_of(name: str, state: Path) -> list[dict[str, Any]]:
    """Run an example to its end, which is success."""
    words = [sys.executable, "-m", "coordinator.cli", "run", f"examples/{name}", "--state", str(state), "-o", "json"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert not state.exists(), "run cleans up after itself"
    jobs: list[dict[str, Any]] = json.loads(done.stdout)["jobs"]
    return jobs


@pytest.mark.parametrize("name", SAYS)
def test_an_example_succeeds_and_leaves_its_nodes_released(name: str, tmp_path: Path) -> None:
    (job,) = jobs_of(name, tmp_path / "state")
    assert job["result"] == "success"
    assert job["tasks"]["succeeded"] == job["tasks"]["total"] > 0
    assert {node["state"] for node in job["nodes"]} == {"released"}
    printed = "".join(node["release"]["stdout_tail"] for node in job["nodes"])
    assert SAYS[name] in printed


def test_what_failed_or_hung_at_first_gets_through_at_the_second_attempt(tmp_path: Path) -> None:
    (job,) = jobs_of("retries.batch", tmp_path / "state")
    assert {task["attempts"] for task in job["tasks_list"]} == {2}
    assert job["tasks"]["succeeded"] == job["tasks"]["total"] == 5


def test_tasks_wait_for_their_own_part_and_an_optional_failure_spoils_nothing(tmp_path: Path) -> None:
    (job,) = jobs_of("branches.batch", tmp_path / "state")
    counts = job["tasks"]
    assert (counts["succeeded"], counts["failed"], counts["skipped"], job["result"]) == (11, 1, 1, "success")
    results = {task["id"].partition("/")[2]: task for task in job["tasks_list"]}
    assert results["calibrate[oil]"]["result"] == "failure"
    assert "none failed" in results["alarm"]["reason"]
    for scenario in (1, 2, 3):
        for desk in ("fx", "rates"):
            price, calibrate = results[f"price[{scenario},{desk}]"], results[f"calibrate[{desk}]"]
            assert calibrate["ended_at"] <= price["started_at"]
    [node] = job["nodes"]
    assert node["release"]["stdout_tail"] == "6 prices of 2 desks\n"

"""`on_end` with real daemons: refused where it is not allowed, else called until it ended well, whoever dies."""

from __future__ import annotations

import json
import os
import pwd
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import COORDINATOR, Cluster, Pipe, gone

pytestmark = pytest.mark.e2e

SCRIPT = """
{ tr '\\0' '\\n' < /proc/$$/environ | sort; echo "$(id -u):$(id -G)"; echo $$; } > %(place)s/told
read -r status < %(place)s/orders
echo "leaving with $status"
exit "$status"
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that other users may pass through."""
    with tempfile.TemporaryDirectory() as made:
        os.chmod(made, 0o711)
        yield Path(made)


def pipe(path: Path) -> Pipe:
    made = Pipe(path)
    path.chmod(0o666)
    return made


def test_it_is_called_over_a_crash_and_again_when_it_fails_with_nothing_but_its_own(
    cluster: Cluster, place: Path
) -> None:
    told, orders = pipe(place / "told"), pipe(place / "orders")
    script = place / "script"
    script.write_text(SCRIPT % {"place": place})
    script.chmod(0o644)
    file = cluster.file(f'job j {{ pool = p\n on_end {{ run = ["sh", "{script}"] }}\n task t {{ run = ["false"] }} }}')
    cluster.serve()
    cluster.agent("n")
    refused = cluster.command("submit", str(file), status=2)
    assert "on_end" in refused.stderr
    cluster.kill("coordinator")

    root = os.geteuid() == 0
    config = cluster.config("coordinator", "[on_end]\nallowed = true\n" + ('user = "nobody"\n' if root else ""))
    words = [*COORDINATOR, "serve", "--state", str(cluster.state), "--config", str(config)]
    cluster.environment["SECRET"] = "not for others"
    cluster._start("coordinator", words)
    job = str(cluster.ask("submit", str(file))["jobs"][0]["id"])
    user = pwd.getpwnam("nobody") if root else None
    groups = os.getgrouplist("nobody", user.pw_gid) if user is not None else sorted({os.getgid(), *os.getgroups()})

    def call(attempt: int) -> int:
        """What one that was called says of itself; its process id."""
        said = told.lines(11)
        *environment, who, pid = said
        assert dict(line.split("=", 1) for line in environment) == {
            "BATCH_ATTEMPT": str(attempt), "BATCH_END_REASON": "AllTasksComplete", "BATCH_JOB_ID": job,
            "BATCH_JOB_NAME": "j", "BATCH_POOL_ID": "p", "BATCH_RESULT": "failure", "HOME": "/", "LANG": "C.UTF-8",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        }  # fmt: skip
        uid, _, its_groups = who.partition(":")
        assert int(uid) == (os.geteuid() if user is None else user.pw_uid)
        assert sorted(map(int, its_groups.split())) == sorted(groups)
        return int(pid)

    first = call(1)
    assert cluster.job(job)["on_end"]["state"] == "owed"
    cluster.kill("coordinator")
    assert gone(first)
    cluster._start("coordinator", words)
    call(1)
    orders.path.write_text("3\n")
    call(2)
    standing = cluster.job(job)["on_end"]
    assert (standing["state"], standing["attempts"], standing["exit_code"]) == ("owed", 1, 3)
    assert standing["output"] == "leaving with 3\n"
    orders.path.write_text("0\n")
    told_of = events(cluster, job, "on_end.called")
    assert [(event["kind"], event["attempt"], event["data"]["exit_code"]) for event in told_of] == [
        ("on_end.retried", 1, 3), ("on_end.called", 2, 0),
    ]  # fmt: skip
    assert cluster.job(job)["on_end"]["state"] == "succeeded"
    assert told.silent()


def events(cluster: Cluster, job: str, last: str) -> list[dict]:
    """What is told of the call, once its last event was."""

    def told() -> list[dict]:
        lines = cluster.command("events", "-o", "json", "--job", job).stdout.splitlines()
        return [event for line in lines if (event := json.loads(line))["kind"].startswith("on_end")]

    cluster.until(lambda _: any(event["kind"] == last for event in told()))
    return told()

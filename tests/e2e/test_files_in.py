"""Files that commands bring in, with real processes: texts, files from beside the submitted one, and downloads."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agentd.test_staging import Server
from tests.e2e.cluster import COORDINATOR, Cluster
from tests.e2e.test_users import WHY_NOT, Users
from tests.e2e.test_users import cluster as users  # noqa: F401  # a fixture

CURVE = b"tenor,rate\n" * 40_000
TOOL = "#!/bin/sh\necho tool $1\n"
WORKFLOW = """
pool p {{ }}
job j {{
  pool = p
  prep {{
    file "in/curve.csv" {{ from = "market/curve.csv" }}
    file "note" {{ text = "prep on ${{node.id}}\\n" }}
    file "net" {{ url = "{url}/net"  sha256 = "{sha256}" }}
    script = 'sha256sum < in/curve.csv; cat note net; id -u; stat -c "%a %u" in/curve.csv note'
  }}
  task t for n in 1..2 {{
    file "bin/tool.sh" {{ from = "tool.sh" }}
    file "in/curve.csv" {{ from = "market/curve.csv"  mode = "0600" }}
    file "n.toml" {{ text = "n = ${{n}} of ${{task.id}}\\n" }}
    file "net" {{ url = "{url}/net" }}
    script = '''
      bin/tool.sh "$n"; cat n.toml net; sha256sum < in/curve.csv
      stat -c "%a %u" bin/tool.sh in/curve.csv n.toml; id -u
    '''
  }}
  task gone {{
    file "x" {{ url = "{url}/gone?key=hunter2" }}
    run     = ["true"]
    retries = 5
  }}
  task other {{
    file "x" {{ url = "{url}/net"  sha256 = "{wrong}" }}
    run  = ["true"]
    exit {{ input => succeed }}
  }}
  release {{
    file "bye" {{ from = "tool.sh" }}
    file "who" {{ text = "release on ${{node.id}}\\n" }}
    script = './bye released; cat who; ls "$BATCH_NODE_ROOT_DIR/shared"'
  }}
}}
"""


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    made.give("/net", b"from the net\n")
    made.give("/gone", b"no", 404)
    yield made
    made.close()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    made.serve()
    yield made
    made.close()


def written(directory: Path, server: Server) -> Path:
    """The workflow's file, and what lies beside it."""
    directory.mkdir()
    (directory / "market").mkdir()
    (directory / "market/curve.csv").write_bytes(CURVE)
    (directory / "market/curve.csv").chmod(0o644)
    (directory / "tool.sh").write_text(TOOL)
    (directory / "tool.sh").chmod(0o755)
    path = directory / "j.batch"
    net = hashlib.sha256(b"from the net\n").hexdigest()
    path.write_text(WORKFLOW.format(url=server.url, sha256=net, wrong="0" * 64))
    return path


def carried_out(cluster: Cluster, directory: Path, server: Server) -> list[str]:
    """Submit it, and see what each command found; the uids of prep and tasks."""
    job = str(cluster.ask("submit", str(written(directory, server)))["jobs"][0]["id"])
    shown = cluster.wait(job)
    tasks = {row["id"].partition("/")[2]: row for row in cluster.ask("task", "list", job)}
    assert {name: row["result"] for name, row in tasks.items()} == {
        "t[1]": "success", "t[2]": "success", "gone": "failure", "other": "success",
    }, shown  # fmt: skip
    gone = tasks["gone"]
    assert (gone["attempts"], gone["reason"]) == (1, f"DownloadFailed: {server.url}/gone?…: 404 Not Found.")
    assert tasks["other"]["reason"] is None or tasks["other"]["reason"].startswith("DigestMismatch: ")
    curve = hashlib.sha256(CURVE).hexdigest()
    node = cluster.nodes_of(job)["n"]
    prep = node["prep"]["stdout_tail"].splitlines()
    assert prep[:3] == [f"{curve}  -", "prep on n", "from the net"]
    uid = prep[3]
    assert prep[4:] == [f"644 {uid}", f"640 {uid}"]
    assert node["release"]["stdout_tail"] == "tool released\nrelease on n\n"
    for n in (1, 2):
        printed = cluster.command("logs", f"{job}/t[{n}]").stdout.splitlines()
        assert printed[:4] == [f"tool {n}", f"n = {n} of t-{n}", "from the net", f"{curve}  -"]
        assert printed[4:] == [f"755 {uid}", f"600 {uid}", f"640 {uid}", uid]
    root = cluster.root("n")
    assert not (root / "scripts" / job).exists(), "nothing of the job is left"
    assert len(list((cluster.state / "blobs").glob("*/*"))) == 2, "kept while the job is"
    return [uid]


def test_a_workflow_finds_all_its_files_and_files_that_do_not_come_are_named(cluster, tmp_path, server):
    cluster.agent("n", slots=2)
    assert carried_out(cluster, tmp_path / "in", server) == [str(os.getuid())]


@pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
def test_the_jobs_own_user_brings_them_in_and_has_them(users: Users, tmp_path, server):  # noqa: F811
    users.agent("n", slots=2)
    (uid,) = carried_out(users, tmp_path / "in", server)
    assert uid != "0"


def test_a_file_that_is_larger_than_the_coordinator_takes_is_refused_with_its_name(tmp_path, server):
    cluster = Cluster(tmp_path)
    config = tmp_path / "coordinator.toml"
    config.write_text("[files]\nmax_mib = 0\n")
    big = tmp_path / "in"
    path = written(big, server)
    with (big / "market/curve.csv").open("wb") as file:
        file.truncate(33 << 20)
    cluster._start("coordinator", [*COORDINATOR, "serve", "--state", str(cluster.state), "--config", str(config)])
    said = cluster.command("submit", str(path), status=2).stderr
    cluster.close()
    assert "market/curve.csv can't be brought in: an upload has 1 to 33554432 bytes here" in said


def test_a_link_out_of_the_files_directory_is_not_followed(cluster, tmp_path, server):
    path = written(tmp_path / "in", server)
    (tmp_path / "in/tool.sh").unlink()
    (tmp_path / "in/tool.sh").symlink_to("/etc/passwd")
    said = cluster.command("submit", str(path), status=2).stderr
    assert "B212" in said
    assert "a link leads out of the directory of the file that names it" in said


def test_the_start_of_a_node_has_its_files_too(tmp_path):
    (tmp_path / "tool.sh").write_text("echo tool\n")
    path = tmp_path / "s.batch"
    path.write_text("""
        pool p {
          start {
            file "t.sh" { from = "tool.sh" }
            file "who"  { text = "${node.id}" }
            script = 'mkdir -p "$BATCH_NODE_SHARED_DIR"; (sh t.sh; cat who) > "$BATCH_NODE_SHARED_DIR/started"'
          }
        }
        job j { pool = p  task t { script = 'cat "$BATCH_NODE_SHARED_DIR/started"' } }
    """)
    said = Cluster(tmp_path).command("run", str(path), "--follow")
    assert "t: tool" in said.stdout + said.stderr

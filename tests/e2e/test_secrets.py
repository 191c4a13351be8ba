"""What is secret stays where it belongs: environments, tokens and keys are in nothing that anybody prints or reads."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import job_of
from tests.e2e.secure import SecureCluster
from wire import thin
from wire.invitation import parse_invitation

HELD_BY_THE_LEDGERS = ("coordinator.sqlite", "journal.sqlite")
"""The ledgers hold jobs as they were submitted; they are for nobody else to read."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[SecureCluster]:
    before = os.umask(0)  # the daemons do not rely on the umask of whoever starts them
    made = SecureCluster(tmp_path)
    try:
        made.serve()
        yield made
    finally:
        os.umask(before)
        made.close()


def files_below(directory: Path) -> Iterator[Path]:
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):
            if stat.S_ISREG(path.lstat().st_mode):
                yield path


def holding(directory: Path, secret: str) -> set[Path]:
    """The files that hold this, as text or as the ledgers would."""
    found = set()
    for path in files_below(directory):
        with contextlib.suppress(FileNotFoundError):
            if secret.encode() in path.read_bytes():
                found.add(path)
    return found


def command_lines() -> bytes:
    """Of every process on the machine, as anybody can read them."""
    lines = b""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                lines += (entry / "cmdline").read_bytes() + b"\n"
    return lines


LISTINGS = (
    ("job", "list"), ("job", "show", "j"), ("job", "nodes", "j"), ("task", "list", "j"), ("task", "show", "j-1/bad"),
    ("task", "show", "j-1/held"), ("node", "list"), ("node", "show", "n"), ("pool", "list"), ("pool", "show", "p"),
    ("token", "list"), ("user", "list"),
)  # fmt: skip


def everything_said(cluster: SecureCluster) -> str:
    """What every listing prints, to people and to programs."""
    said = ""
    for words in LISTINGS:
        for more in ((), ("-o", "json")):
            done = cluster.command(*words, *more)
            said += done.stdout + done.stderr
    return said


def test_t16_environments_stand_in_no_log_listing_or_command_line(cluster: SecureCluster) -> None:
    """With a task that fails, one that is killed with its agent, and a submission that is refused."""
    secret = f"s{secrets.token_hex(16)}"
    cluster.node("n")
    pipe = cluster.pipe("held")
    text = f"""
param key: string = "none"
job j {{
  pool = p
  env {{ JOB_SECRET = "{secret}" }}
  prep {{ script = "true"
    env {{ PREP_SECRET = "{secret}" }}
  }}
  task bad {{ script = "exit 3"
    env {{ BAD_SECRET = "{secret}" }}
  }}
  task odd {{ run = ["/no/such/program"]
    env {{ ODD_SECRET = "{secret}" }}
  }}
  task held {{ script = 'echo up > {pipe.path}; exec sleep 1000'
    env {{ HELD_SECRET = "{secret}" }}
  }}
}}
"""
    path = cluster.file(text)
    path.chmod(0o600)
    cluster.command("submit", str(path), "--param", f"key={secret}")
    pipe.line()
    cluster.until(lambda now: job_of(now, "j-1")["tasks"]["failed"] == 2)
    assert secret.encode() not in command_lines().replace(f"key={secret}".encode(), b"")
    cluster.kill("n", signal.SIGKILL)
    cluster.node("n")
    with thin.connect(str(cluster.socket)) as coordinator, pytest.raises(thin.ThinError) as refused:
        broken = {"format": 1, "pools": [], "jobs": [{"name": "k", "pool": "p", "env": {"A": secret}, secret[:5]: 1}]}
        coordinator.submit(broken, "one")
    assert secret not in str(refused.value.message) + str(refused.value.diagnostics)
    assert secret not in everything_said(cluster)
    cluster.command("job", "terminate", "j")
    cluster.wait("j-1")
    for name in ("n", "coordinator"):
        cluster.kill(name, signal.SIGTERM)
    elsewhere = {found for found in holding(cluster.directory, secret) if found != path}
    assert [found for found in elsewhere if not found.name.startswith(HELD_BY_THE_LEDGERS)] == []
    assert elsewhere, "the ledgers are the place where it is"
    assert {stat.S_IMODE(found.stat().st_mode) for found in elsewhere} == {0o600}


def test_t16_a_tokens_secret_is_stored_nowhere_not_even_by_the_coordinator(cluster: SecureCluster) -> None:
    cluster.node("n")
    spent = cluster.directory / "n.join"
    secret = parse_invitation(spent.read_text().strip()).secret
    lent = cluster.ask("token", "create", "--role", "user", "--name", "ada")["token"]
    wrong = lent[:-4] + ("AAAA" if lent[-4:] != "AAAA" else "BBBB")
    refused = cluster.command("login", cluster.address, status=3, stdin=wrong + "\n")
    cluster.command("login", cluster.address, stdin=lent + "\n")
    for each in (secret, parse_invitation(lent).secret, parse_invitation(wrong).secret):
        assert each not in refused.stdout + refused.stderr
        assert each.encode() not in command_lines()
        assert holding(cluster.directory, each) <= {spent}
        listed = "".join(
            cluster.command(*words, "-o", "json").stdout for words in (("token", "list"), ("user", "list"))
        )
        assert each not in listed


def test_t16_a_private_key_is_in_one_file_and_in_nothing_that_is_said(cluster: SecureCluster) -> None:
    cluster.node("n")
    cluster.command("login", cluster.address, stdin=cluster.invitation("user") + "\n")
    keys = [*cluster.directory.rglob("*.key"), *cluster.directory.rglob("key.pem")]
    assert len(keys) == 4  # the authority's, the server's, the node's, the person's
    logs = "".join(path.read_text() for path in cluster.directory.glob("*.log"))
    for key in keys:
        lines = [line for line in key.read_text().splitlines() if line and not line.startswith("-")]
        for line in lines[:2]:  # the third holds the public half
            assert holding(cluster.directory, line) == {key}
            assert line not in logs


def test_t16_what_the_daemons_keep_is_for_nobody_else_whatever_the_umask(cluster: SecureCluster) -> None:
    cluster.node("n")
    cluster.command("login", cluster.address, stdin=cluster.invitation("user") + "\n")
    job = cluster.submit("job j { pool = p\n prep { script = 'true' }\n task t { script = 'true' } }")
    cluster.wait(job)
    root = cluster.root("n")
    places = [cluster.state, root / ".agent", *cluster.directory.glob("xdg/poolkeeper/logins")]
    assert len(places) == 3
    open_to_others = {}
    for place in places:
        for path in [place, *place.rglob("*")]:
            mode = path.lstat().st_mode
            if stat.S_IMODE(mode) & 0o077 and not stat.S_ISLNK(mode):
                open_to_others[str(path.relative_to(cluster.directory))] = oct(stat.S_IMODE(mode))
    # The keepers' door: below a directory that nobody else can enter, for keepers that hold a handle to it.
    assert open_to_others in ({}, {"nodes/n/.agent/door": "0o711", "nodes/n/.agent/door/keepers.sock": "0o666"})

"""`pool bootstrap` before it reaches a host: its command line, what it carries, and how it words what ssh says."""

from __future__ import annotations

import fcntl
import io
import os
import shlex
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from click.testing import CliRunner

from coordinator.cli.bootstrap import bootstrap_pool
from coordinator.cli.failure import Failure
from coordinator.cli.remote import SCRIPT, Cargo, Reach, _why
from coordinator.cli.wheels import _compressed, _installed, _written, make_wheels
from tests.e2e.cluster import gone

# ---- the command line


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["p", "h"], "how the hosts are reached: --ssh"),
        (["p", "--ssh"], "name the hosts"),
        (["p", "--ssh", "--", "-oProxyCommand=true"], "is no host"),
        (["p", "--ssh", "a b"], "is no host"),
        (["p", "--ssh", "h", "i", "h"], "h is named twice"),
        (["p", "--ssh", "h", "--coordinator", "/a/socket"], "at which HOST:PORT"),
        (["p", "--ssh", "h", "--address", "head:0"], "a port is 1 to 65535"),
    ],
)
def test_a_wrong_command_line_is_a_sentence(words: list[str], sentence: str) -> None:
    done = CliRunner().invoke(bootstrap_pool, words)
    assert isinstance(done.exception, Failure)
    assert sentence in done.exception.message


def test_ssh_is_never_let_ask_and_takes_no_option_for_a_host() -> None:
    words = Reach(user="ann", config="/etc/mine").command("host")
    assert "BatchMode=yes" in words
    assert "ClearAllForwardings=yes" in words
    assert words[words.index("-l") + 1] == "ann"
    assert words[words.index("-F") + 1] == "/etc/mine"
    assert words[words.index("--") + 1] == "host"
    assert not any(word.startswith("StrictHostKeyChecking") for word in words), "whom to trust is the user's to say"


# ---- what is carried


def test_the_token_travels_in_the_cargo_and_stands_in_no_command_and_no_representation(tmp_path: Path) -> None:
    wheel = tmp_path / "a-1-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    cargo = Cargo([wheel], {"POOL": "p", "NAME": "", "ROOT": "it's $HOME"}, "the-secret")
    packed = cargo.packed({"NAME": "n"})
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        names = archive.getnames()
        modes = {entry.mode for entry in archive}
        settings = archive.extractfile("settings").read().decode()
        join = archive.extractfile("join").read()
    assert names == ["bootstrap.sh", "settings", "join", "wheels/a-1-py3-none-any.whl"]
    assert modes == {0o600}
    assert join == b"the-secret\n"
    assert "the-secret" not in settings + repr(cargo) + " ".join(Reach().command("host"))
    shown = subprocess.run(
        ["sh", "-c", f'{settings}\nprintf "%s|%s" "$ROOT" "$NAME"'], capture_output=True, text=True, check=True
    )
    assert shown.stdout == "it's $HOME|n"


def test_the_script_is_one_that_every_shell_reads() -> None:
    for shell in ("sh", "bash"):
        subprocess.run([shell, "-n", str(SCRIPT)], check=True)


def test_a_wheel_of_poolkeeper_holds_its_packages_its_commands_and_what_it_needs(tmp_path: Path) -> None:
    (wheel,) = make_wheels(tmp_path, alone=True)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        notes = next(name for name in names if name.endswith("METADATA"))
        metadata = archive.read(notes).decode()
        scripts = archive.read(notes.replace("METADATA", "entry_points.txt")).decode()
        record = archive.read(notes.replace("METADATA", "RECORD")).decode()
    assert {"agentd/keeper.py", "coordinator/cli/bootstrap.sh", "dsl/grammar.lark", "wire/py.typed"} <= set(names)
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]
    assert "agentd = agentd.__main__:main" in scripts
    assert "Requires-Dist: trio" in metadata
    assert [line.partition(",")[0] for line in record.splitlines()] == names


def test_a_wheel_of_what_is_installed_is_what_was_installed(tmp_path: Path) -> None:
    found = distribution("msgpack")
    wheel = _written(_installed(found), tmp_path)
    again = _written(_installed(found), tmp_path / "..")
    again_bytes = again.read_bytes()
    again.unlink()
    assert wheel.read_bytes() == again_bytes, "the same files make the same wheel"
    assert wheel.name.startswith(f"msgpack-{found.version}-cp")
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        for name in ("msgpack/__init__.py", "msgpack/_cmsgpack.pyi"):
            if name in archive.namelist():
                assert archive.read(name) == Path(str(found.locate_file(name))).read_bytes()


def test_everything_that_is_needed_is_carried_and_nothing_of_the_tests(tmp_path: Path) -> None:
    names = {wheel.name.partition("-")[0] for wheel in make_wheels(tmp_path)}
    assert {"poolkeeper", "trio", "cffi", "cryptography", "msgspec", "outcome", "sortedcontainers"} <= names
    assert not names & {"pytest", "hypothesis", "trustme", "mypy"}


def test_tags_are_written_short_in_the_name_of_a_wheel() -> None:
    assert _compressed(["py2-none-any", "py3-none-any"]) == "py2.py3-none-any"
    assert _compressed(["cp311-abi3-one_x", "cp311-abi3-two_x"]) == "cp311-abi3-one_x.two_x"


# ---- what ssh says


@pytest.mark.parametrize(
    ("status", "said", "code"),
    [
        (255, "No ED25519 host key is known for h\r\nHost key verification failed.\r\n", "host-key"),
        (255, "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key for h has changed", "host-key"),
        (255, "ann@h: Permission denied (publickey,password).\r\n", "no-key"),
        (255, "ssh: Could not resolve hostname h: Name or service not known\r\n", "unreachable"),
        (255, "ssh: connect to host h port 22: Connection refused\r\n", "unreachable"),
        (255, "ssh: connect to host h port 22: No route to host\r\n", "unreachable"),
        (255, "kex_exchange_identification: read: Connection reset by peer", "unreachable"),
        (255, "", "unreachable"),
        (2, "tar: wheels/a.whl: Cannot write: No space left on device\n", "no-space"),
        (127, "sh: 1: tar: not found\n", "install-failed"),
    ],
)
def test_whatever_ssh_says_has_a_word_and_a_sentence(status: int, said: str, code: str) -> None:
    found, sentence = _why("h", status, said)
    assert found == code
    assert sentence
    assert "\r" not in sentence
    assert shlex.split(shlex.quote(sentence)) == [sentence]


# ---- what is done on a host, by the script itself


class Host:
    """A directory that is a host's: Poolkeeper is installed there as far as the script looks; its agent is `agentd`."""

    def __init__(self, directory: Path, agentd: str = "echo nobody listens >&2; exec sleep 60") -> None:
        self.prefix, self.root, self.here = directory / "prefix", directory / "root", directory / "here"
        place = self.prefix / "venv-d"
        (place / "bin").mkdir(parents=True)
        (place / "complete").touch()
        for name, text in (("agentd", agentd), ("python", f'exec {shlex.quote(sys.executable)} "$@"')):
            (place / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
            (place / "bin" / name).chmod(0o755)
        self.started = self.prefix / "agentd.pid"

    def run(self, stdout: int | None = None) -> tuple[int, list[str]]:
        """Its exit status, and what it said but the name."""
        self.here.mkdir()
        settings = {
            "POOL": "p", "ADDRESS": "head:9", "NAME": "n", "ROOT": str(self.root), "PREFIX": str(self.prefix),
            "PYTHON": sys.executable, "DIGEST": "d", "NEEDS_KB": "1", "PIP_ARGS": "", "PIP_NAMES": "", "PATIENCE": "5",
        }  # fmt: skip
        (self.here / "settings").write_text("".join(f"{k}={shlex.quote(v)}\n" for k, v in settings.items()))
        (self.here / "join").write_text("the-secret\n")
        done = subprocess.run(
            ["sh", str(SCRIPT), str(self.here)], stdout=subprocess.PIPE if stdout is None else stdout, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert not self.here.exists(), "the token is still there"
        return done.returncode, [line for line in (done.stdout or "").splitlines() if not line.startswith("name ")]


def test_an_agent_that_is_not_let_in_is_ended_as_a_next_call_would_leave_it(tmp_path: Path) -> None:
    host = Host(tmp_path)
    assert host.run() == (1, ["step starting", "failed not-joined nobody listens"])
    assert gone(int(host.started.read_text().split()[0]))


def test_what_an_earlier_call_still_does_on_a_host_is_not_disturbed(tmp_path: Path) -> None:
    host = Host(tmp_path)
    with open(host.prefix / "bootstrap.lock", "w") as earlier:
        fcntl.flock(earlier, fcntl.LOCK_EX)
        status, said = host.run()
    assert (status, said) == (
        1, [f"failed busy {host.prefix} is being set up there already, by an earlier call: try again"],
    )  # fmt: skip
    assert not host.started.exists()


def test_the_agent_of_another_root_is_neither_replaced_nor_forgotten(tmp_path: Path) -> None:
    host = Host(tmp_path)
    began = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    host.started.write_text(f"{os.getpid()} {began} /another root\n")
    status, said = host.run()
    assert status == 1
    assert said == [
        f"failed busy the agent of /another root runs from {host.prefix}: give the one of {host.root} another --prefix"
    ]
    assert host.started.read_text().endswith(" /another root\n")


def test_nothing_is_left_on_a_host_when_whoever_asked_is_gone(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        assert Host(tmp_path).run(writing)[0] == 141
    finally:
        os.close(writing)

"""`pool bootstrap` before it reaches a host: its command line, what it carries, and how it words what ssh says."""

from __future__ import annotations

import io
import shlex
import subprocess
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

"""One host over OpenSSH: what is carried there, what it says, and why it failed, in a word and a sentence.

The user's own ssh client is used with the user's own configuration and keys; it is never let ask for anything.
"""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from coordinator.render import plain

CONNECT_S: Final = 15
LOOK_S: Final = 0.2
TIDY_S: Final = 5.0
"""For a host to remove what it was sent, once it has said how it went."""
SCRIPT: Final = Path(__file__).with_name("bootstrap.sh")
_LONGEST_LINE: Final = 1000
_MAX_LINES: Final = 1000
_SSH_FAILED: Final = 255
_UNPACK: Final = (
    'here=$(mktemp -d "${TMPDIR:-/tmp}/poolkeeper.XXXXXX") && chmod 700 "$here" && '
    '{ tar -xf - -C "$here" || { rm -rf "$here"; exit 2; }; } && exec sh "$here/bootstrap.sh" "$here"'
)
"""What a host is told on the command line; all else comes over stdin, where nobody reads along."""

_SSH_REASONS: Final = (
    (
        "host key verification failed",
        "host-key",
        "its host key is not the known one, or none is: `ssh {host}` shows it",
    ),
    ("remote host identification has changed", "host-key", "its host key has changed: `ssh {host}` says what to do"),
    ("permission denied", "no-key", "it accepts none of your keys: `ssh-add` one, or put one there with `ssh-copy-id`"),
    ("too many authentication failures", "no-key", "it accepts none of the first keys of your agent"),
    ("could not resolve hostname", "unreachable", "there is no host of this name"),
    ("connection refused", "unreachable", "nothing listens for ssh there"),
    ("no route to host", "unreachable", "there is no way to it"),
    ("network is unreachable", "unreachable", "there is no way to it"),
    ("timed out", "unreachable", f"it did not answer within {CONNECT_S} s"),
)
"""What ssh says, in lower case -> a word for programs, a sentence for people."""

_REASONS: Final = {
    "no-python": "it has no Python of version 3.11 or newer ({said}): install one, or name one with --python",
    "no-venv": "its Python can't make a virtual environment ({said}): on Debian and Ubuntu install python3-venv",
    "no-space": "it has no room: {said}",
    "install-failed": "the installation failed: {said}",
    "agent-ended": "its agent ended: {said}",
    "not-joined": "its agent did not join in time: {said}",
    "busy": "{said}",
}


@dataclass(frozen=True, slots=True)
class Reach:
    """How hosts are reached: as which user, by which configuration of ssh, and how long one may take."""

    user: str | None = None
    config: str | None = None
    patience_s: float = 300.0

    def command(self, host: str) -> list[str]:
        words = ["ssh", "-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_S}"]
        words += ["-o", "ServerAliveInterval=10", "-o", "ClearAllForwardings=yes"]
        words += ["-F", self.config] if self.config else []
        words += ["-l", self.user] if self.user else []
        return [*words, "--", host, f"sh -c {shlex.quote(_UNPACK)}"]


@dataclass(slots=True)
class Outcome:
    """How a host ended. `code` is empty unless it failed."""

    host: str
    node: str | None = None
    changed: bool = False
    code: str = ""
    reason: str = ""


@dataclass(slots=True)
class Cargo:
    """What is carried to every host: in memory alone, as a token is in it."""

    wheels: Sequence[Path]
    settings: Mapping[str, str]
    join: str = field(repr=False)

    def packed(self, more: Mapping[str, str]) -> bytes:
        """A tar archive, with some settings of one host."""
        packed = io.BytesIO()
        settings = {**self.settings, **more}
        with tarfile.open(fileobj=packed, mode="w") as archive:
            _add(archive, "bootstrap.sh", SCRIPT.read_bytes())
            _add(archive, "settings", "".join(f"{k}={shlex.quote(v)}\n" for k, v in settings.items()).encode())
            _add(archive, "join", self.join.encode() + b"\n")
            for wheel in self.wheels:
                _add(archive, f"wheels/{wheel.name}", wheel.read_bytes())
        return packed.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o600
    archive.addfile(entry, io.BytesIO(content))


def bootstrap(reach: Reach, host: str, cargo: bytes, step: Callable[[str], None], over: threading.Event) -> Outcome:
    """Carry it there, run it, and listen. Blocks, for as long as its patience lasts at most, or until it is `over`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BATCH_")}
    outcome = Outcome(host)
    with tempfile.TemporaryFile() as complaints:
        try:
            process = subprocess.Popen(
                reach.command(host), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, env=environment
            )
        except OSError as error:
            outcome.code, outcome.reason = "no-ssh", f"ssh can't be run here: {error.strerror}"
            return outcome
        late = threading.Event()
        ended = threading.Event()
        alarm = threading.Thread(target=_limit, args=(process, reach.patience_s, ended, late, over), daemon=True)
        alarm.start()
        feeding = threading.Thread(target=_feed, args=(process, cargo), daemon=True)
        feeding.start()
        started = False
        try:
            started = _listen(process, outcome, step)
        finally:
            ended.set()
            alarm.join()
            if started or outcome.code:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(TIDY_S)
            process.kill()
            status = process.wait()
            feeding.join()
        complaints.seek(0)
        said = complaints.read(64 * 1024).decode("utf-8", "replace")
    if late.is_set():
        outcome.code, outcome.reason = "too-slow", f"it was not done within {reach.patience_s:g} s"
    elif not started and not outcome.code:
        outcome.code, outcome.reason = _why(host, status, said)
    return outcome


def _limit(
    process: subprocess.Popen[bytes], patience_s: float, ended: threading.Event, late: threading.Event,
    over: threading.Event,
) -> None:  # fmt: skip
    """End what takes too long, or what nobody waits for any more."""
    looks = int(patience_s / LOOK_S)
    for _ in range(looks):
        if ended.wait(LOOK_S):
            return
        if over.is_set():
            break
    else:
        late.set()
    process.kill()


def _feed(process: subprocess.Popen[bytes], cargo: bytes) -> None:
    assert process.stdin is not None, "it was opened as a pipe"
    try:
        with process.stdin as pipe:
            pipe.write(cargo)
    except (BrokenPipeError, ValueError):
        return  # it ended before it read all: its own words say why


def _listen(process: subprocess.Popen[bytes], outcome: Outcome, step: Callable[[str], None]) -> bool:
    """Take what the host says, line by line; whether its agent was started."""
    assert process.stdout is not None, "it was opened as a pipe"
    with process.stdout as pipe:
        for _ in range(_MAX_LINES):
            line = pipe.readline(_LONGEST_LINE)
            if not line:
                return False
            word, _, rest = plain(line.decode("utf-8", "replace").rstrip("\n")).partition(" ")
            if word == "step":
                step(rest)
            elif word == "name":
                outcome.node = rest
            elif word == "started":
                outcome.changed = rest == "yes"
                return True
            elif word == "failed":
                code, _, said = rest.partition(" ")
                outcome.code = code
                outcome.reason = _REASONS.get(code, "{said}").format(said=said or "it did not say why")
                return False
    return False


def _why(host: str, status: int, said: str) -> tuple[str, str]:
    """Of a host whose script said nothing in the end: what ssh, or the host's shell, complained about."""
    lowered = said.lower()
    last = plain(said.strip().rpartition("\n")[2])[:400]
    if "no space left on device" in lowered:
        return "no-space", f"it has no room: {last}"
    if status == _SSH_FAILED:
        for words, code, sentence in _SSH_REASONS:
            if words in lowered:
                return code, sentence.format(host=host)
        return "unreachable", f"ssh failed: {last or 'it did not say why'}"
    return "install-failed", f"the installation broke off: {last or f'exit status {status}'}"

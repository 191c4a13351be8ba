"""An agent as small as can be, that starts real keepers and talks with them; and a look at who is alive."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import Any

from agentd.boot import boot_identity
from agentd.containment import Containment, Level, probe
from agentd.files import NodeFiles
from agentd.keeper import Outbox, encode, messages_of, receive_packet
from agentd.processes import ProcessProof, open_process
from agentd.spawn import AS_WE_ARE, Fence, Starter

PATIENCE_S = 30.0
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PYTHON = [
    shutil.which("python3", path=PATH) or os.path.realpath(getattr(sys, "_base_executable", sys.executable)),
    *("-I", "-S", "-c"),
]
"""Preferably one that every user may execute."""
USER = 2_000_000_000 + 2 * os.getpid()
"""The user of a job, and with 1 added of another: nobody's else on this machine."""
_tokens = itertools.count(1)


def token() -> str:
    """A number of seconds to sleep that nobody else sleeps: who has it in the command line belongs to the test."""
    return f"{100_000 + os.getpid()}.{next(_tokens):06}"


def alive(mark: str) -> list[int]:
    """Who has this in the command line and is no zombie."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if mark.encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                found.append(int(name))
    return found


def until(condition, patience_s: float = PATIENCE_S) -> Any:
    """Wait for something that gives no event (a process of others ends, a file appears)."""
    deadline = time.monotonic() + patience_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        select.select([], [], [], 0.005)
    return found


class Conversation:
    """The agent's end of one connection of a keeper."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.setblocking(False)
        self.outbox = Outbox(sock)
        self.unread: list[dict[str, Any]] = []

    def say(self, *messages: dict[str, Any]) -> None:
        self.outbox.put([encode(message).encode() for message in messages])
        while not self.outbox.flush():
            select.select([], [self.sock], [], PATIENCE_S)

    def hear(self, op: str) -> dict[str, Any]:
        """The next message of this kind; others before it are dropped."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            while self.unread:
                message = self.unread.pop(0)
                if message["op"] == op:
                    return message
            readable, _, _ = select.select([self.sock], [], [], max(0.0, deadline - time.monotonic()))
            assert readable, f"no {op!r} came"
            packet = receive_packet(self.sock)
            assert packet is not None, f"the keeper hung up before {op!r}"
            self.unread += messages_of(packet)

    def hung_up(self) -> bool:
        """Read on to the end of the connection."""
        while True:
            readable, _, _ = select.select([self.sock], [], [], PATIENCE_S)
            assert readable, "the keeper does not hang up"
            try:
                packet = receive_packet(self.sock)
            except ConnectionResetError:
                return True
            if packet is None:
                return True
            self.unread += messages_of(packet)

    def close(self) -> None:
        self.outbox.close()
        self.sock.close()


class Agent:
    """A node's root, its keepers and the socket they connect to. `user`: whom its jobs run as, fenced; None: as us."""

    def __init__(
        self, place: Path, level: Level = Level.SUBREAPER, adopts: bool = False, user: int | None = None
    ) -> None:
        self.user = user
        self.files = NodeFiles(str(place / "root"))
        self.root = Path(self.files.root)
        self.boot = boot_identity()
        self.containment = Containment(self.files.root, self.boot, None)
        if level is Level.CGROUP:
            self.containment = probe(self.files.root, self.files.incarnation, self.boot)
            assert self.containment.level is Level.CGROUP
        self.starter = Starter(self.files.agent_directory, self.boot, self.containment, idle_exit_s=1, adopts=adopts)
        self.proofs: dict[str, tuple[str, ProcessProof]] = {}
        self.conversations: list[Conversation] = []
        self.listen()

    def listen(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.starter.door / "keepers.sock")
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        directory = os.open(self.starter.door, os.O_RDONLY)
        self.listener.bind(f"/proc/self/fd/{directory}/keepers.sock")
        os.close(directory)
        os.chmod(self.starter.door / "keepers.sock", 0o666)
        self.listener.listen(16)
        self.listener.settimeout(PATIENCE_S)

    def accept(self) -> Conversation:
        sock, _ = self.listener.accept()
        self.conversations.append(Conversation(sock))
        return self.conversations[-1]

    def fence(self, job: str) -> Fence:
        return AS_WE_ARE if self.user is None else Fence(self.user, private=f"{job}/private")

    def start(self, keeper: str = "k-1", job: str = "j-1", fence: Fence | None = None) -> Conversation:
        """A new keeper that has said hello and knows the template `t`."""
        self.files.make_job(job, [], {}, user=self.user)
        proof = self.spawn(keeper, job, fence)
        talk = self.accept()
        hello = talk.hear("hello")
        assert (hello["keeper"], hello["pid"], hello["starttime"]) == (keeper, proof.pid, proof.starttime)
        return talk

    def spawn(self, keeper: str = "k-1", job: str = "j-1", fence: Fence | None = None) -> ProcessProof:
        """Start a keeper's process, and no more."""
        proof = self.starter.start(keeper, job, self.files.workitems, fence or self.fence(job))
        self.proofs[keeper] = (job, proof)
        return proof

    def template(self, argv: list[Any], **changes: Any) -> dict[str, Any]:
        fields = {
            "op": "template",
            "id": "t",
            "argv": argv,
            "env": {"PATH": PATH, "BATCH_JOB_ID": "j-1", "BATCH_NODE_ROOT_DIR": self.files.root},
            "timeout_s": None,
            "stop_signal": 15,
            "stop_grace_s": 0.2,
            "leave_running": False,
            "leased": False,
        }
        return {**fields, **changes}

    def run(self, talk: Conversation, argv: list[Any], key: str = "a", values: list[str] | None = None, **changes: Any):
        """Send a command; it gets the directory `j-1/<key>`."""
        item = [key, "t", values or [], f"j-1/{key}"]
        talk.say(self.template(argv, **changes), {"op": "run", "items": [item]})

    def ended(self, talk: Conversation, argv: list[Any], key: str = "a", **changes: Any) -> dict[str, Any]:
        """Run a command to its end."""
        self.run(talk, argv, key, **changes)
        return talk.hear("ended")

    def output(self, key: str = "a", name: str = "stdout.txt") -> str:
        return (self.root / "workitems" / "j-1" / key / name).read_text()

    def over(self, keeper: str = "k-1") -> None:
        """Wait until the keeper's process has ended."""
        fd = open_process(self.proofs[keeper][1], self.boot)
        if fd is not None:
            assert select.select([fd], [], [], PATIENCE_S)[0], "the keeper does not end"
            os.close(fd)

    def vanish(self) -> None:
        """As if the agent's process died: all its connections and its listener are gone."""
        self.listener.close()
        for conversation in self.conversations:
            conversation.close()
        self.conversations.clear()

    def close(self) -> None:
        for keeper, (job, proof) in self.proofs.items():
            assert self.starter.kill(keeper, job, proof) == 0
        for job in {job for job, _ in self.proofs.values()}:
            assert self.containment.kill_job(job) == 0
        self.vanish()
        self.containment.remove_base()
        self.files.close()

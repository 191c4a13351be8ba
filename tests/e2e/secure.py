"""A cluster whose agents come over TLS: join strings, and the ways in which a test starts an agent with one."""

from __future__ import annotations

import re
import secrets
import subprocess
from pathlib import Path

from tests.e2e.cluster import AGENTD, COORDINATOR, PATIENCE_S, Cluster, node_of
from wire import thin
from wire.invitation import Invitation, token_digest


class SecureCluster(Cluster):
    """`address` is where agents dial: the coordinator's port, unless a test puts something between."""

    def __init__(self, directory: Path, *, certificates: str = "") -> None:
        super().__init__(directory)
        self.address = "127.0.0.1:0"
        self.options: list[str] = []
        if certificates:
            path = directory / "coordinator.toml"
            path.write_text(f"[certificates]\n{certificates}\n")
            self.options = ["--config", str(path)]

    def serve(self) -> subprocess.Popen[str]:
        """As the plain one, at the same port every time."""
        command = [*COORDINATOR, "serve", "--state", str(self.state), "--listen", self.address, *self.options]
        process = self._start("coordinator", command)
        found = re.search(r"and (\S+:\d+)", self.lines["coordinator"])
        assert found, self.lines
        self.address = found[1]
        return process

    def invitation(self, role: str = "node", *, uses: int = 1, lifetime_s: float = 600.0) -> str:
        """A join string."""
        secret = secrets.token_urlsafe(32)
        with thin.connect(str(self.socket)) as coordinator:
            made = coordinator.call(
                "TokenCreate", digest=token_digest(secret), role=role, uses=uses, lifetime_s=lifetime_s, name=None,
                pool=None,
            )  # fmt: skip
        return Invitation(made["authority"], secret).text()

    def command_of(self, name: str, *options: str, root: str | None = None, pool: str = "p") -> list[str]:
        """An agent's command line."""
        config = () if "--config" in options else ("--config", str(self.config(name)))
        return [
            *AGENTD, "--coordinator", self.address, "--pool", pool, "--name", name, "--root",
            str(self.root(root or name)), "--slots", "1", *config, *options,
        ]  # fmt: skip

    def node(self, name: str, *options: str) -> subprocess.Popen[str]:
        """Start an agent, which joins by a token of its own unless `options` say otherwise; it is in when this
        returns."""
        if "--join" not in options and not (self.root(name) / ".agent" / "identity" / "certificate.pem").exists():
            path = self.directory / f"{name}.join"
            path.write_text(self.invitation() + "\n")
            options = (*options, "--join", f"@{path}")
        process = self._start(name, self.command_of(name, *options))
        self.until(lambda now: node_of(now, name)["state"] in ("idle", "running"))
        return process

    def ends(self, *command: str, status: int, said: str = "", more: dict[str, str] | None = None) -> str:
        """What an agent that comes to nothing says on stderr."""
        done = subprocess.run(
            list(command), input=said, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
            env={**self.environment, **(more or {})},
        )  # fmt: skip
        assert done.returncode == status, (done.returncode, done.stderr)
        assert "Traceback" not in done.stderr
        return done.stderr

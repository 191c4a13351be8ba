"""`coordinator pool bootstrap POOL --ssh HOST…`: agents on many machines, started over OpenSSH and joined by one token.

Each host gets Poolkeeper as a wheel and what it needs, installs it into a private environment, and starts an agent; the
coordinator then says which nodes came. A host that is done already is left as it is.
"""

from __future__ import annotations

import hashlib
import queue
import secrets
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import click

from coordinator.cli import output, remote
from coordinator.cli.connection import Connection
from coordinator.cli.failure import Exit, misused
from coordinator.cli.options import Terms, facts
from coordinator.cli.places import coordinator_address
from coordinator.cli.remote import Cargo, Outcome, Reach
from coordinator.cli.wheels import NAME, make_wheels
from coordinator.render import Column, plain
from wire.address import host_and_port, is_host_and_port
from wire.invitation import Invitation, token_digest

HOSTS: Final = 1_000
NEEDED_KB: Final = 60 * 1024
GROWTH: Final = 10
"""An installed wheel takes so many times its size, compiled files included."""
LOOK_AGAIN_S: Final = 0.25
MORE_TIME_S: Final = 900.0
"""A token lives so much longer than the slowest host may take."""
PART_TO_JOIN: Final = 0.6
"""Of a host's time: what its agent may take to be admitted."""
STEP_S: Final = 0.2
"""Between two looks of the script at its agent."""
THERE: Final = ("starting", "start_failed", "idle", "running", "draining", "drained", "unusable")
"""States of a node whose agent is connected and has said what it holds."""
COLUMNS: Final = (Column("HOST"), Column("NODE"), Column("STATE"), Column("REASON", flexible=True))


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of every host."""

    pool: str
    address: str
    root: str
    prefix: str
    python: str
    pip_args: str
    own: Path | None
    wheels: Path | None


@click.command("bootstrap")
@click.argument("pool")
@click.option("--ssh", "over_ssh", is_flag=True, help="Over OpenSSH, with your own ssh configuration and keys.")
@click.argument("hosts", nargs=-1, metavar="HOST...")
@click.option("--address", "join_address", metavar="HOST:PORT", help="Where the hosts reach this coordinator.")
@click.option("--user", metavar="USER", help="Whom to log in as there (default: as ssh is configured).")
@click.option(
    "--ssh-config", type=click.Path(dir_okay=False), metavar="FILE", help="Instead of your ssh configuration."
)
@click.option("--root", default="", metavar="DIR", help="The node's directory there (default: the agent's).")
@click.option("--prefix", default="", metavar="DIR", help="Where Poolkeeper is installed there.")
@click.option("--python", default="", metavar="PATH", help="The Python to use there (default: of the PATH).")
@click.option(
    "--name-from", type=click.Choice(["hostname", "address"]), default="hostname", help="What a node is named."
)
@click.option("--wheel", type=click.Path(exists=True, dir_okay=False), metavar="FILE", help="Install this Poolkeeper.")
@click.option(
    "--wheels", type=click.Path(exists=True, file_okay=False), metavar="DIR", help="With what it needs from here."
)
@click.option("--pip-args", default="", metavar="ARGS", help="For pip there: it may ask an index, nothing is carried.")
@click.option("--parallel", type=click.IntRange(1, 100), default=10, show_default=True, help="Hosts at once.")
@click.option("--timeout", type=click.IntRange(5, 3600), default=300, show_default=True, help="Seconds for one host.")
@facts
def bootstrap_pool(
    terms: Terms,
    pool: str,
    over_ssh: bool,
    hosts: tuple[str, ...],
    join_address: str | None,
    user: str | None,
    ssh_config: str | None,
    root: str,
    prefix: str,
    python: str,
    name_from: str,
    wheel: str | None,
    wheels: str | None,
    pip_args: str,
    parallel: int,
    timeout: int,
) -> int:
    """Make nodes of POOL out of HOSTs: install this version there, start an agent, wait until it has joined."""
    if not over_ssh:
        raise misused("say how the hosts are reached: --ssh", "`coordinator pool bootstrap POOL --ssh HOST…`")
    _check_hosts(hosts)
    wish = Wish(
        pool, _address(terms, join_address), root, prefix, python, pip_args,
        Path(wheel) if wheel else None, Path(wheels) if wheels else None,
    )  # fmt: skip
    reach = Reach(user, ssh_config, float(timeout))
    with tempfile.TemporaryDirectory(prefix="poolkeeper-") as made, terms.connect() as connection:
        token, cargo = _load(connection, wish, Path(made), len(hosts), float(timeout))
        try:
            fleet = Fleet(connection, reach, cargo, pool, {h: h.rpartition("@")[2] for h in hosts})
            outcomes = fleet.run(hosts, parallel, by_address=name_from == "address")
        finally:
            connection.ask("TokenRevoke", token=token)
    _show(terms, outcomes)
    return Exit.FAILED if any(outcome.code for outcome in outcomes) else Exit.DONE


def _check_hosts(hosts: Sequence[str]) -> None:
    if not hosts:
        raise misused("name the hosts: `coordinator pool bootstrap POOL --ssh HOST…`")
    if len(hosts) > HOSTS:
        raise misused(f"{len(hosts)} hosts at once: at most {HOSTS}")
    for host in hosts:
        if host.startswith("-") or not host.isprintable() or any(c.isspace() for c in host):
            raise misused(f"{plain(host)!r} is no host: write HOST or USER@HOST")
    if twice := sorted({host for host in hosts if hosts.count(host) > 1}):
        raise misused(f"{twice[0]} is named twice")


def _address(terms: Terms, given: str | None) -> str:
    """Where agents reach the coordinator. That it can be asked at the same place is likely, over TCP."""
    address = given or coordinator_address(terms.address)
    if not is_host_and_port(address):
        raise misused(
            "say at which HOST:PORT the hosts reach this coordinator: --address",
            "`coordinator serve --listen` opens it",
        )
    try:
        host_and_port(address)
    except ValueError as error:
        raise misused(str(error)) from None
    return address


def _load(connection: Connection, wish: Wish, made: Path, hosts: int, timeout_s: float) -> tuple[str, Cargo]:
    """What is carried to every host, and the id of the token that is part of it."""
    wheels = make_wheels(made, own=wish.own, alone=wish.wheels is not None or bool(wish.pip_args))
    if wish.wheels is not None:
        wheels += [path for path in sorted(wish.wheels.glob("*.whl")) if path.name != wheels[0].name]
    secret = secrets.token_urlsafe(32)
    token = connection.ask(
        "TokenCreate", digest=token_digest(secret), role="node", uses=hosts, lifetime_s=timeout_s + MORE_TIME_S,
        name=None, pool=wish.pool,
    )  # fmt: skip
    size = sum(path.stat().st_size for path in wheels)
    settings = {
        "POOL": wish.pool,
        "ADDRESS": wish.address,
        "ROOT": wish.root,
        "PREFIX": wish.prefix,
        "PYTHON": wish.python,
        "DIGEST": _digest(wheels, wish),
        "NEEDS_KB": str(NEEDED_KB + GROWTH * size // 1024),
        "PIP_ARGS": wish.pip_args or "--no-index",
        "PIP_NAMES": NAME if wish.wheels is not None else " ".join(f"wheels/{path.name}" for path in wheels),
        "PATIENCE": str(int(PART_TO_JOIN * timeout_s / STEP_S)),
    }
    return str(token["id"]), Cargo(wheels, settings, Invitation(token["authority"], secret).text())


def _digest(wheels: Iterable[Path], wish: Wish) -> str:
    """Another one, and an environment is another one."""
    digest = hashlib.sha256(f"{wish.python}\0{wish.pip_args}\0".encode())
    for path in wheels:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


class Fleet:
    """The hosts of one command. Threads talk to hosts, this one asks the coordinator and says how it goes."""

    def __init__(self, connection: Connection, reach: Reach, cargo: Cargo, pool: str, names: dict[str, str]) -> None:
        self._connection = connection
        self._reach = reach
        self._cargo = cargo
        self._pool = pool
        self._names = names
        self._done: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._over = threading.Event()

    def run(self, hosts: Sequence[str], parallel: int, *, by_address: bool) -> list[Outcome]:
        """How each host ended, in the order in which they were named."""
        ended: dict[str, Outcome] = {}
        waiting: dict[str, tuple[Outcome, float]] = {}
        with ThreadPoolExecutor(max_workers=parallel) as threads:
            try:
                for host in hosts:
                    threads.submit(self._one, host, self._names[host] if by_address else "")
                while len(ended) < len(hosts):
                    self._take(ended, waiting)
                    self._look(ended, waiting)
            except BaseException:
                self._over.set()
                threads.shutdown(wait=False, cancel_futures=True)
                raise
        return [ended[host] for host in hosts]

    def _one(self, host: str, name: str) -> None:
        """In a thread of its own."""
        outcome = Outcome(host)
        try:
            _say(host, "connecting")
            cargo = self._cargo.packed({"NAME": name})
            outcome = remote.bootstrap(self._reach, host, cargo, partial(_say, host), self._over)
        except Exception as error:
            outcome.code, outcome.reason = "internal", f"this is a mistake in Poolkeeper: {error!r}"
        finally:
            self._done.put(outcome)

    def _take(self, ended: dict[str, Outcome], waiting: dict[str, tuple[Outcome, float]]) -> None:
        """What threads have brought, after a short wait for it."""
        try:
            outcome = self._done.get(timeout=LOOK_AGAIN_S)
        except queue.Empty:
            return
        others = [o for o in (*ended.values(), *(o for o, _ in waiting.values())) if not o.code]
        twin = next((other.host for other in others if other.node == outcome.node), None)
        if not outcome.code and twin is not None:
            outcome.code = "same-name"
            outcome.reason = f"it is named {outcome.node}, as {twin} is: use --name-from address"
        if outcome.code:
            self._end(ended, outcome)
        else:
            waiting[outcome.host] = outcome, time.monotonic() + self._reach.patience_s

    def _look(self, ended: dict[str, Outcome], waiting: dict[str, tuple[Outcome, float]]) -> None:
        """Which nodes the coordinator has by now."""
        if not waiting:
            return
        now = {node["id"]: node for node in self._connection.rows("NodeList")}
        for host, (outcome, until) in list(waiting.items()):
            node = now.get(outcome.node or "")
            if node is not None and node["state"] in THERE and node["pool"] == self._pool:
                del waiting[host]
                self._end(ended, outcome)
            elif time.monotonic() > until:
                del waiting[host]
                state = "is not known to the coordinator" if node is None else f"is {node['state']} in {node['pool']}"
                outcome.code = "not-joined"
                outcome.reason = f"its agent was started, but node {outcome.node} {state}"
                self._end(ended, outcome)

    def _end(self, ended: dict[str, Outcome], outcome: Outcome) -> None:
        ended[outcome.host] = outcome
        _say(outcome.host, f"failed: {outcome.reason}" if outcome.code else f"{_state(outcome)} as {outcome.node}")


def _say(host: str, text: str) -> None:
    output.remark(f"{plain(host)}: {plain(text)}")


def _state(outcome: Outcome) -> str:
    if outcome.code:
        return "failed"
    return "joined" if outcome.changed else "unchanged"


def _show(terms: Terms, outcomes: Sequence[Outcome]) -> None:
    document = [
        {
            "host": o.host, "node": o.node, "state": _state(o), "code": o.code or None, "reason": o.reason or None
        }
        for o in outcomes
    ]  # fmt: skip
    rows = [[o.host, o.node or "-", _state(o), o.reason or "-"] for o in outcomes]
    terms.show(
        document,
        lambda: output.table(COLUMNS, rows),
    )

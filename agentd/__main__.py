"""`agentd`: the node agent's command line."""

from __future__ import annotations

import os
import platform
import re
import secrets
import sys
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from wire.address import SOCKET_NAME, host_and_port, is_host_and_port
from wire.clock import boot_clock
from wire.notify import own_supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from agentd.config import FileConfig
    from agentd.events import Leave
    from agentd.identity import Door, JoinGiven
    from agentd.model import NodeConfig
    from agentd.session import Place
    from wire.notify import Supervisor

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\Z")


class Failure(click.ClickException):
    """What prevents the agent from running, as a sentence on stderr."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status

    def show(self, file: object = None) -> None:
        print(f"agentd: {self.message}", file=sys.stderr, flush=True)


def _default_address() -> str:
    """As every command finds a live coordinator."""
    if address := os.environ.get("BATCH_COORDINATOR"):
        return address
    state = os.environ.get("BATCH_STATE") or os.path.join(_state_home(), "poolkeeper")
    return os.path.join(state, SOCKET_NAME)


def _state_home() -> str:
    return os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")


def _pairs(kind: str, given: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not _NAME.match(name) or not (equals or kind == "label"):
            raise Failure(f"{pair!r} is no {kind}: write NAME=VALUE.", 2)
        pairs[name] = value
    return pairs


def _resources(given: tuple[str, ...]) -> list[tuple[str, float]]:
    resources = []
    for name, text in _pairs("resource", given).items():
        try:
            resources.append((name, float(text)))
        except ValueError:
            raise Failure(f"--resource {name}={text}: {text!r} is no number.", 2) from None
    return resources


def _offers(config: FileConfig, resource: tuple[str, ...], label: tuple[str, ...]) -> dict[str, Any]:
    """What the node offers and is, by the file and the command line, which wins."""
    from agentd.offers import GPUS, OfferError, gpus_of, labels_of, measured, resources_of

    try:
        resources = resources_of([*measured().items(), *config.resources.items(), *_resources(resource)])
        gpus = gpus_of(resources, config.gpus)
        labels = labels_of({**config.labels, **_pairs("label", label)})
    except OfferError as error:
        raise Failure(str(error), 2) from None
    return {"resources": {**resources, GPUS: float(len(gpus))} if gpus else resources, "gpus": gpus, "labels": labels}


def _version() -> str:
    try:
        return version("poolkeeper")
    except PackageNotFoundError:  # run from a checkout
        return ""


def _print_version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked:
        _say(f"agentd {_version()}" if _version() else "agentd, not installed")
        ctx.exit()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--coordinator", metavar="ADDRESS", help="HOST:PORT, or the coordinator's socket on this machine.")
@click.option("--pool", required=True, metavar="POOL", help="The pool that this node joins.")
@click.option("--name", metavar="NODE", help="The node's id (default: this machine's name).")
@click.option("--root", metavar="DIR", help="The node's directory (default: in the user's state directory).")
@click.option("--slots", type=click.IntRange(1, 4096), help="Tasks at once (default: as the pool says).")
@click.option(
    "--resource",
    multiple=True,
    metavar="NAME=N",
    help="What this node offers: `gpus=2`, or anything that tasks may need.",
)
@click.option("--label", multiple=True, metavar="K=V", help="What this node is: K, or K=V.")
@click.option("--config", "config_file", metavar="FILE", help="Configuration (TOML).")
@click.option("--join", metavar="JOIN", help="A join string for the first start: @FILE, - for stdin, or itself.")
@click.option("--allow-elevation", is_flag=True, help="Let jobs run elevated commands here, as root.")
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show it.")
@click.option("--embedded", is_flag=True, hidden=True)
@click.option("--lifeline", type=int, hidden=True)
def agentd(  # one parameter an option
    coordinator: str | None,
    pool: str,
    name: str | None,
    root: str | None,
    slots: int | None,
    resource: tuple[str, ...],
    label: tuple[str, ...],
    config_file: str | None,
    join: str | None,
    allow_elevation: bool,
    embedded: bool,
    lifeline: int | None,
) -> None:
    """Run a node: join POOL, run what the coordinator grants, leave the machine as it was found.

    A coordinator at HOST:PORT lets a node in by its certificate, which the first start gets for a join string (also
    taken from $BATCH_JOIN). Later starts need none.

    SIGTERM stops the agent and leaves tasks to their keepers; SIGINT leaves the node clean.
    """
    address = coordinator or _default_address()
    name = name or platform.node()
    for kind, given in (("node", name), ("pool", pool)):
        if not _NAME.match(given):
            raise Failure(f"{given!r} is no name for a {kind}: letters, digits, `_`, `-` and `.`, 64 at most.", 2)
    from agentd.config import ConfigError, FileConfig, read_config

    try:
        config = FileConfig() if config_file is None else read_config(Path(config_file))
    except ConfigError as error:
        raise Failure(f"{error}.", 2) from None
    from agentd.identity import read_join
    from agentd.model import NodeConfig
    from wire.invitation import InvitationError

    try:
        endpoint = host_and_port(address) if is_host_and_port(address) else None
        invited = read_join(join)
    except InvitationError as error:
        raise Failure(f"{error}.", 2) from None
    except ValueError as error:
        raise Failure(f"--coordinator {error}.", 2) from None
    if join is not None and endpoint is None:
        raise Failure(f"--join is for a coordinator at HOST:PORT; the one at {address} knows who you are without.", 2)
    users = users_of(config.users.mode, embedded=embedded, root=os.geteuid() == 0)
    elevation, refused = elevation_of(allow_elevation or config.allow_elevation, root=os.geteuid() == 0)
    node = NodeConfig(
        root=os.path.abspath(root or _default_root(name, users)),
        incarnation="",
        pool=pool,
        node=name,
        slots=slots or config.slots,
        **_offers(config, resource, label),
        elevation=elevation,
        elevation_refused=refused,
        users=users,
        version=_version(),
        embedded=embedded,
        disk_floor=config.limits.disk_floor_bytes,
        output_head=config.outputs.head,
        output_tail=config.outputs.tail,
        output_success=config.outputs.success,
        path_additions=tuple(config.path),
        site_env=config.env,
    )
    raise SystemExit(_run(node, address, endpoint, invited, config, lifeline))


def users_of(wanted: str | None, *, embedded: bool, root: bool) -> str:
    """Whether each job runs as a user of its own here (`job`), or all as the agent's (`same`)."""
    if wanted == "job" and not root:
        raise Failure('[users] mode = "job": only root can run jobs as users of their own; start the agent as root.', 2)
    return "same" if embedded or not root else wanted or "job"


def elevation_of(allowed: bool, *, root: bool) -> tuple[bool, str]:
    """Whether elevated commands run here, and why not: the end of a sentence."""
    if allowed and not root:
        return False, "which this node can't give: its agent is not run by root"
    return allowed, "which this node does not allow (agentd --allow-elevation)"


def _default_root(name: str, users: str) -> str:
    """Users of jobs must be able to get there, which they can't below root's home."""
    home = "/var/lib/poolkeeper-node" if users == "job" else os.path.join(_state_home(), "poolkeeper", "nodes")
    return os.path.join(home, name)


def _run(
    node: NodeConfig,
    address: str,
    endpoint: tuple[str, int] | None,
    given: JoinGiven,
    file: FileConfig,
    lifeline: int | None,
) -> int:
    """Take the root, then run. What is heavy is imported here, when the command line is known to be right."""
    import trio

    from agentd.beneath import FilesError
    from agentd.dial import LocalWay
    from agentd.events import Leave
    from agentd.identity import DIRECTORY, Door, OutcastError
    from agentd.processes import ContainmentError
    from agentd.session import run_agent
    from agentd.uids import UidsError
    from wire.identity import IdentityError
    from wire.ledger import StoreError
    from wire.mistake import innermost

    try:
        config, place = _stand_on(node, file)
        run = partial(run_agent, supervisor=_SUPERVISOR, lifeline=lifeline, announce=_say)
        if endpoint is None:
            why, reason = trio.run(run, config, place, LocalWay(os.path.abspath(address)))
        else:
            door = Door(*endpoint, os.path.join(place.files.agent_directory, DIRECTORY), given)
            why, reason, config = _run_by_identity(door, run, config, place)
    except Exception as error:
        cause = innermost(error)
        if isinstance(cause, IdentityError | OutcastError):
            raise Failure(f"node {node.node}: {str(cause).removesuffix('.')}.", 3) from None
        if isinstance(cause, FilesError | StoreError | UidsError | ContainmentError):
            raise Failure(str(cause), 3) from None
        if isinstance(cause, OSError):
            raise Failure(f"{cause.filename or node.root}: {cause.strerror or cause}.", 3) from None
        raise Failure(_mistake(cause, node.root), 1) from None
    if why in (Leave.REFUSED, Leave.REVOKED):
        raise Failure(f"the coordinator refused node {config.node}: {reason.removesuffix('.')}.", 3)
    return 0


def _run_by_identity(
    door: Door, run: Callable[..., Coroutine[Any, Any, tuple[Leave, str]]], config: NodeConfig, place: Place
) -> tuple[Leave, str, NodeConfig]:
    """Be let in, and run; once more for a node whose key was revoked, if there is a join string for another.
    Raises OutcastError, IdentityError (in groups), and what `run` does."""
    import msgspec
    import trio

    from agentd.dial import SecureWay
    from agentd.events import Leave
    from wire.log import daemon_log

    log = daemon_log("agentd").bind(node=config.node)
    said: set[str] = set()

    def waits(reason: str) -> None:
        if reason not in said:
            said.add(reason)
            log.warning("not admitted yet", reason=reason)
        _SUPERVISOR.ready(f"node {config.node}: not admitted yet: {reason}")

    clock = boot_clock("")
    while True:
        papers = door.enter(config.node, clock().wall, waits)
        if papers is None:
            return Leave.STOPPED, "", config
        if papers.certificate.name != config.node:
            log.warning("named by its certificate", name=papers.certificate.name)
        config = msgspec.structs.replace(config, node=papers.certificate.name)
        way = SecureWay(door.host, door.port, papers, lambda: clock().wall, log)
        why, reason = trio.run(run, config, place, way)
        if why is not Leave.REVOKED or not door.may_come_again():
            return why, reason, config


def _stand_on(node: NodeConfig, file: FileConfig) -> tuple[NodeConfig, Place]:
    """Take the root and find out what this machine lets us do. Raises FilesError, UidsError, ContainmentError,
    OSError."""
    import msgspec

    from agentd.boot import boot_identity
    from agentd.containment import Containment, probe
    from agentd.files import NodeFiles
    from agentd.model import Staging
    from agentd.noted import note, noted
    from agentd.offers import room_below
    from agentd.session import Place
    from agentd.spawn import (
        become_subreaper,
        isolation_refused,
        open_files_limit,
        raise_open_files_limit,
        staging_program,
    )
    from agentd.uids import Range, Uids, UidsError, refuse_way

    boot = boot_identity(file.boot_id_file)
    users = Range(file.users.first, file.users.count) if node.users == "job" else None
    files = NodeFiles(node.root, job_users=users is not None)
    os.umask(0o077)  # whatever this process makes from here on is its own, unless it says otherwise
    uids = None
    if users is not None:
        refuse_way(files.root)
        uids = Uids(file.users.leases, users, files.incarnation, files.root)
        if (refused := isolation_refused(users.last)) is not None:
            raise UidsError(f'{refused} (With mode = "same" in [users] all jobs run as the agent\'s own user.)')
    remembered = Path(files.agent_directory) / "containment"
    before = (noted(remembered) or b"").decode("utf-8", "replace") or None
    user_of = None if uids is None else uids.of
    containment = Containment(files.root, boot, None, (), users=users, user_of=user_of)
    if file.limits.cgroups:
        containment = probe(
            files.root, files.incarnation, boot, before, pids_max=file.limits.pids, users=users, user_of=user_of
        )
    if containment.memory != before:
        note(remembered, containment.memory.encode())
    nofile = open_files_limit()
    raise_open_files_limit()
    become_subreaper()
    resources = node.resources
    if "disk" not in resources:
        remembered = Path(files.agent_directory) / "disk"
        resources = {**resources, "disk": room_below(files.root, node.disk_floor, remembered, holds=files.holds_jobs())}
    given = file.files
    bringing = Staging(
        program=staging_program(files.scripts, given.python, job_users=users is not None),
        timeout_s=given.timeout_s, patience_s=given.patience_s, max_bytes=given.max_bytes, tries=given.tries,
        proxy=given.proxy, ca=given.ca,
    )  # fmt: skip
    config = msgspec.structs.replace(
        node, root=files.root, resources=resources, incarnation=files.incarnation, containment=containment.level.value,
        limits=tuple(containment.limits), life=secrets.token_hex(8), staging=bringing,
    )  # fmt: skip
    return config, Place(files, boot, containment, nofile, uids)


def _mistake(error: BaseException, root: str) -> str:
    """What is said of an error that nobody foresaw; where it came from stands in a file, for who mends it."""
    from wire.mistake import culprit, write_down

    where = write_down(error, Path(root) / ".agent" / "crash.txt")
    return (
        f"a mistake of the agent itself ({culprit(error)}); {where}. Tasks go on below their keepers; start the agent "
        "again."
    )


def _say(line: str) -> None:
    print(line, flush=True)  # stdout may be a file, and somebody waits for the line


_SUPERVISOR: Final[Supervisor] = own_supervisor()
"""Made before anything else, so that nobody below this process finds the way to it."""


def main() -> None:
    """The console script."""
    try:
        agentd(standalone_mode=False)
    except Failure as failure:
        failure.show()
        sys.exit(failure.status)
    except click.ClickException as error:
        message = error.format_message().rstrip(".").replace("is not a valid integer range", "is no whole number")
        end = "" if message.endswith("?") else "."
        print(f"agentd: {message[:1].lower()}{message[1:]}{end} `agentd --help` lists what there is.", file=sys.stderr)
        sys.exit(2)
    except click.exceptions.Abort:
        sys.exit(130)


if __name__ == "__main__":
    main()

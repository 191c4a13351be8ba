"""The coordinator as a daemon: its state directory, its store, its doors, and the driver around `coordinator.core`."""

from __future__ import annotations

import gc
import os
import resource
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from coordinator import staging
from coordinator.config import Config, ConfigError, OnEndConfig, read_config
from coordinator.core import Core
from coordinator.doors import LocalDoor, TlsDoor, address_of, open_listeners
from coordinator.events import Event, Ready, StoreState, Tick
from coordinator.identities import Certificates
from coordinator.outputs import open_outputs
from coordinator.server import Server
from coordinator.store import open_store
from wire.address import SOCKET_NAME
from wire.blobs import Blobs
from wire.clock import boot_clock
from wire.driver import Driver
from wire.identity import IdentityError
from wire.ledger import StoreError, StoreHeld
from wire.mistake import culprit, innermost, write_down
from wire.notify import Supervisor, own_supervisor
from wire.stream import listen_unix

if TYPE_CHECKING:
    from coordinator.authority import Authority

BLOBS: Final = "blobs"
CRASH: Final = "crash.txt"

EMBEDDED: Final = Config(on_end=OnEndConfig(allowed=True, timeout="1m"))
"""What `run` lives by: whoever calls it may have run here what it likes."""

_STATUS: Final[dict[type[Exception], int]] = {
    StoreHeld: 3, StoreError: 1, ConfigError: 2, IdentityError: 1, OSError: 1,
}  # fmt: skip
"""Ends that are no mistake of ours, with their exit status (the first that fits)."""


def serve(
    state: str | Path,
    config_file: str | Path | None = None,
    *,
    listen: str | None = None,
    lifeline: int | None = None,
    announce: Callable[[str], None] | None = None,
) -> int:
    """Serve the state directory until SIGTERM, or until all is over after it was asked to finish; the exit status.

    `listen` is the `host:port` to open to the network, for those with certificates. `lifeline` is the reading end of a
    pipe that `run` holds: when it breaks, every job is ended, every release paid, and the coordinator goes. `announce`
    is given the one line that says it is ready (else stdout is). What prevents serving is a sentence on stderr.
    """
    os.umask(0o077)  # nothing of the state directory is for others
    started_by = own_supervisor()
    try:
        config = EMBEDDED if lifeline is not None else Config()
        if config_file is not None:
            config = read_config(Path(config_file))
        how = partial(serve_state, listen=listen, lifeline=lifeline, announce=announce or _say, supervisor=started_by)
        trio.run(how, Path(state), config)
    except Exception as error:
        cause = innermost(error)
        status = next((status for kind, status in _STATUS.items() if isinstance(cause, kind)), None)
        if status is None:
            print(f"coordinator: {_mistake(cause, Path(state))}", file=sys.stderr, flush=True)
            return 1
        reason = f"{cause.filename or state}: {cause.strerror or cause}" if isinstance(cause, OSError) else str(cause)
        print(f"coordinator: {reason}", file=sys.stderr, flush=True)
        return status
    return 0


def _mistake(error: BaseException, state: Path) -> str:
    """What is said of an error that nobody foresaw; where it came from stands in a file, for who mends it."""
    said = f"a mistake of the coordinator itself ({culprit(error)}); {write_down(error, state / CRASH)}"
    return f"{said}. What was acknowledged is stored: start it again"


def _say(line: str) -> None:
    print(line, flush=True)  # stdout may be a file, and somebody waits for the line


async def serve_state(
    state: Path,
    config: Config,
    *,
    listen: str | None = None,
    lifeline: int | None = None,
    announce: Callable[[str], None],
    supervisor: Supervisor | None = None,
) -> None:
    """As `serve`, inside trio. Raises StoreError, ConfigError, IdentityError, OSError (in groups)."""
    _raise_file_limit()
    clock = boot_clock()
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(state))
        authority = None if listen is None else _authority(state, clock().wall)
        lives = config.certificates
        digest = None if authority is None else authority.digest
        core = Core(config.policy, Certificates(digest, lives.node_s, lives.people_s))
        for record in await store.load():
            core.apply(record)
        core.restarted(clock())
        gc.freeze()  # what was loaded stays: no collection need walk it again
        blobs = Blobs(state / BLOBS, max_blob=config.files.max_bytes, max_held=config.files.held_bytes)
        blobs.expire(clock().wall, staging.named(core.cluster))
        driver = Driver[Event, Ready](
            core,
            clock=clock,
            tick=Tick(),
            commit=store.commit,
            deliver=lambda ready: server.deliver(ready),
            send_at_once=lambda ready: server.send_at_once(ready),
            store_state=StoreState,
        )
        local = LocalDoor(config)
        server = Server(driver, store, blobs, local)
        core.account = server.budget.on_account_of
        server.supervisor = supervisor or server.supervisor
        server.caller = config.on_end.caller()
        server.named = lambda: staging.named(core.cluster)
        kept = open_outputs(state, config.outputs, core.cluster.jobs)
        server.keep_outputs(await stack.enter_async_context(kept))
        remote: list[trio.SocketListener] = []
        if authority is not None and listen is not None:
            server.tls = TlsDoor(
                authority, lambda: core.cluster.identities, driver.put, lambda: clock().wall, server.log
            )
            if os.geteuid() == 0:
                server.log.warning("this coordinator runs as root: a user of its own is enough for it, and safer")
            remote = await _listen(listen)
            for listener in remote:
                stack.push_async_callback(listener.aclose)
        path = state / SOCKET_NAME
        socket = listen_unix(str(path))
        stack.callback(path.unlink, missing_ok=True)
        stack.push_async_callback(socket.aclose)
        local.open_to_group(state, path)
        places = " and ".join([str(path), *map(address_of, remote)])
        await server.run(socket, remote, lifeline, partial(announce, f"coordinator: ready at {places}"))


def _authority(state: Path, wall: float) -> Authority:
    from coordinator.authority import open_authority  # only who is reached over the network needs what it imports

    return open_authority(state, wall)


async def _listen(listen: str) -> list[trio.SocketListener]:
    try:
        return await open_listeners(listen)
    except ValueError as error:
        raise ConfigError(f"--listen {error}") from None
    except OSError as error:
        raise ConfigError(f"--listen {listen}: {error.strerror or error}") from None


def _raise_file_limit() -> None:
    """As many sessions as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

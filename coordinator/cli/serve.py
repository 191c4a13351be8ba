"""`coordinator serve`: the daemon. What is heavy is imported when it starts."""

from __future__ import annotations

import os

import click

from coordinator.cli.failure import failed, misused, reason_of
from coordinator.cli.places import state_directory
from wire.address import host_and_port_to_listen


@click.command()
@click.option(
    "--state", metavar="DIR", help="Where its state is (default: $BATCH_STATE, else the user's state directory)."
)
@click.option(
    "--listen", metavar="HOST:PORT", help="Also open a port to the network, for those who joined or logged in."
)
@click.option("--config", type=click.Path(dir_okay=False), metavar="FILE", help="Configuration (TOML).")
@click.option("--lifeline", type=int, hidden=True, help="End all jobs and go when this descriptor is at its end.")
def serve(state: str | None, listen: str | None, config: str | None, lifeline: int | None) -> int:
    """Run the coordinator in the foreground. It says so when it is ready; SIGTERM stops it, jobs stay as they are."""
    if listen is not None:
        try:
            host_and_port_to_listen(listen)
        except ValueError as error:
            raise misused(f"--listen {error}") from None
    path = state_directory(state)
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
    except OSError as error:
        raise failed(f"no state directory at {path}: {reason_of(error)}") from None
    from coordinator.daemon import serve as serve_until_stopped

    return serve_until_stopped(path, config, listen=listen, lifeline=lifeline)

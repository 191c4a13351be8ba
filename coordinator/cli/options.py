"""What every command that asks a coordinator shares: `--coordinator`, `--output`, and the connection behind them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

import click

from coordinator.cli import output

if TYPE_CHECKING:
    from coordinator.cli.connection import Connection

P = ParamSpec("P")
R = TypeVar("R")

FORMATS: Final = ("table", "json")

output_option = click.option(
    "-o", "--output", "shape", type=click.Choice(FORMATS), default=None, help="How facts are printed (default: table)."
)
coordinator_option = click.option(
    "--coordinator",
    "address",
    metavar="ADDRESS",
    help="The coordinator's socket, or HOST:PORT (default: $BATCH_COORDINATOR, ...).",
)


@dataclass(frozen=True)
class Terms:
    """What was asked for on this command line, whichever command it is."""

    address: str | None
    json: bool

    def connect(self) -> Connection:
        from coordinator.cli.connection import connect

        return connect(self.address)

    def show(self, document: Any, lines: Callable[[], list[str]]) -> None:
        """Print a fact in the shape that was asked for."""
        if self.json:
            output.emit(document)
        else:
            output.say(*lines())


def facts(command: Callable[Concatenate[Terms, P], R]) -> Callable[P, R]:
    """A command that asks a live coordinator and prints what it says."""
    return coordinator_option(shaped(command))


def shaped(command: Callable[Concatenate[Terms, P], R]) -> Callable[P, R]:
    """A command that prints facts. `-o` and `--coordinator` may also stand before the command's name."""

    @output_option
    @functools.wraps(command)
    def asked(*args: P.args, **kwargs: P.kwargs) -> R:
        root = click.get_current_context().find_root().params
        address = kwargs.pop("address", None) or root.get("address")
        shape = kwargs.pop("shape", None) or root.get("shape")
        return command(Terms(str(address) if address else None, shape == "json"), *args, **kwargs)

    return asked

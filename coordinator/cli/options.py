"""What every command that asks a coordinator shares: `--coordinator`, `--output`, and the connection behind them."""

from __future__ import annotations

import functools
import re
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


class Family(click.Group):
    """Commands with one name before theirs. In its help each is told by the beginning of its own."""

    def summaries(self, ctx: click.Context) -> list[tuple[str, str]]:
        """Each command's name, and what it does."""
        members = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        return [(name, _summary(member.help)) for name, member in members if member is not None]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(self.summaries(ctx))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None:
            ctx.fail(f"no such command {args[0]!r}{self.meant(ctx, args[0])}")
        return super().resolve_command(ctx, args)

    def meant(self, ctx: click.Context, word: str) -> str:
        """The way out of a command that does not exist, as the end of a sentence."""
        from wire.near import did_you_mean

        meant = did_you_mean(word, self.list_commands(ctx))
        return f": {meant}" if meant else ""


def _summary(text: str | None) -> str:
    """`Empty a node` of `Empty a node: no new work, …`."""
    return re.split(r"[.:;](?:\s|$)", " ".join((text or "").split()), maxsplit=1)[0]


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

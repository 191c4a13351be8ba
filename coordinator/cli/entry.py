"""From the command line to an exit status: the tree of commands, each imported when it is called, and the one place
where whatever went wrong becomes a sentence."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import click

from coordinator.cli import output
from coordinator.cli.failure import Exit, Failure, failed, interrupted, misused, reason_of
from coordinator.cli.options import Family, coordinator_option, output_option

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS: Final = {
    "run": (
        "run",
        "Run a file on this machine: a coordinator, agents, every job, the result; then all of it goes again.",
    ),
    "check": ("check", "Print the diagnostics of files."),
    "serve": ("serve", "Run the coordinator in the foreground."),
    "submit": ("submit", "Submit every job of a file, all or none."),
    "job": ("jobs", "Show, await, change and end jobs."),
    "task": ("tasks", "Show and cancel tasks."),
    "node": ("nodes", "Show nodes, empty them for maintenance, take them back, and shut them out."),
    "pool": ("pools", "Show and change pools, and make nodes of hosts."),
    "top": ("top", "Show the cluster live, until `q`."),
    "explain": ("explain", "Say why a job or a task is as it is: the dominant reason first."),
    "logs": ("logs", "Print what a command wrote, byte by byte as it wrote it."),
    "shell": ("shell", "Open a shell where a task ran: its directory, user, environment and limits."),
    "events": ("events", "What happened, oldest first; an id is the same whenever it is asked for."),
    "files": ("files", "Look at files on a node."),
    "token": ("tokens", "Let nodes and people in over the network."),
    "user": ("users", "Show who may come in over the network, and end it."),
    "login": ("login", "Be known to the coordinator at ADDRESS (HOST:PORT), by a join string."),
}
"""Name → module of `coordinator.cli` that has it under this name, and the first sentence of its help, so that the list
of commands loads none of them. In the order of the list."""


class Commands(Family):
    """The root command: knows its subcommands by name and imports the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(f"coordinator.cli.{module}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def summaries(self, ctx: click.Context) -> list[tuple[str, str]]:
        return [(name, summary) for name, (_, summary) in COMMANDS.items()]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        fitting = [(name, summary) for name, summary in self.summaries(ctx) if name.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [*(CompletionItem(name, help=summary) for name, summary in fitting), *options]

    def meant(self, ctx: click.Context, word: str) -> str:
        """Also `node drain`, of who typed `drain`."""
        if nearest := super().meant(ctx, word):
            return nearest
        from coordinator.render import joined

        families = ((name, self.get_command(ctx, name)) for name in COMMANDS)
        full = [
            f"`{name} {word}`" for name, one in families if isinstance(one, Family) and word in one.list_commands(ctx)
        ]
        return f": did you mean {joined(full)}?" if full else ""


def _print_version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if not asked:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        output.say(f"coordinator {version('poolkeeper')}")
    except PackageNotFoundError:
        output.say("coordinator, not installed")
    ctx.exit()


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@coordinator_option
@output_option
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show it.")
def coordinator(address: str | None, shape: str | None) -> None:
    """Run workflows on shared clusters and leave every node as it was found.

    Exit status: 0 done, 1 something failed, 2 the command line or the file is wrong, 3 no coordinator or refused,
    4 no such job, task, node or pool, 124 the timeout ran out, 130 interrupted.
    """


def run_command(arguments: Sequence[str] | None = None) -> int:
    """Run one command; every way it can end is an exit status here, with a sentence on stderr where one is due."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    _forgive_encodings()
    try:
        status = _attempt(argv)
        sys.stdout.flush()
    except BrokenPipeError:
        return _reader_gone()
    except OSError as error:  # only what writing to stdout or stderr can raise comes this far
        _discard_stdout()
        return _end(failed(f"the output could not be written: {reason_of(error)}"), argv)
    return status


def _attempt(argv: list[str]) -> int:
    try:
        # Without standalone mode click returns what the command gave, or the status of --help and the like.
        outcome = coordinator.main(args=argv, prog_name="coordinator", standalone_mode=False)
    except Failure as failure:
        return _end(failure, argv)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return Exit.USAGE
    except click.ClickException as error:
        return _end(_from_click(error), argv)
    except (click.Abort, KeyboardInterrupt):
        return _end(interrupted(), argv)
    except SystemExit as ending:  # click's way of saying that the reader of our output is gone
        raise BrokenPipeError from ending
    except OSError as error:
        if error.filename is None:
            raise
        return _end(failed(f"{os.fsdecode(error.filename)}: {reason_of(error)}"), argv)
    except Exception as error:
        if os.environ.get("BATCH_DEBUG") == "1":
            raise
        return _end(_mistake(error), argv)
    return int(outcome) if isinstance(outcome, int) else Exit.DONE


def _end(failure: Failure, argv: list[str]) -> int:
    with suppress(OSError):  # where nothing can be said, the exit status says it
        output.report(failure, as_document=wants_json(argv))
    return int(failure.exit)


def wants_json(argv: Sequence[str]) -> bool:
    """Whether `-o json` was asked for, even on a command line that is wrong otherwise."""
    wanted = False
    for n, word in enumerate(argv):
        if word == "--":
            break
        if word in ("-o", "--output"):
            wanted = argv[n + 1 : n + 2] == ["json"]
        elif word.startswith(("--output=", "-o")):
            wanted = word.removeprefix("--output=").removeprefix("-o").removeprefix("=") == "json"
    return wanted


def _from_click(error: click.ClickException) -> Failure:
    context = getattr(error, "ctx", None)
    path = context.command_path if isinstance(context, click.Context) else "coordinator"
    message = error.format_message().replace("is not a valid integer range", "is no whole number")
    return misused(message[:1].lower() + message[1:].rstrip("."), f"`{path} --help` lists what there is")


def _mistake(error: BaseException) -> Failure:
    place = ""
    trace = error.__traceback__
    while trace is not None:
        place = f" ({os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno})"
        trace = trace.tb_next
    what = f"{type(error).__name__}: {error}".rstrip(": ")
    return Failure(
        Exit.FAILED,
        "internal",
        f"this is a mistake in Poolkeeper, not yours: {what}{place}",
        "run it again with BATCH_DEBUG=1 in the environment to see where, and please report it",
    )


def _reader_gone() -> int:
    """Whoever read our output stopped reading (`| head`): end the way every other program does, by SIGPIPE."""
    _discard_stdout()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGPIPE)
    return 128 + signal.SIGPIPE


def _discard_stdout() -> None:
    """What is still buffered can't be written; without this the interpreter would complain about it at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _forgive_encodings() -> None:
    """A terminal that can't show a character shows its escape: no command fails for that."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Any = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")

"""Debugging shells on this node: each has a keeper of its own, in the directory and with the user, environment and
limits of one of the job's commands. None outlives its round, its session, or this agent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from agentd.desk import Desk
from agentd.dialogue import ItemEnded, RunItems, StopItem, Template
from agentd.environment import CommandRefused, TaskTexts, phase_directory, phase_template
from agentd.events import EndTerminal, OpenTerminal, TerminalOpened
from agentd.keepers import Keeper, Keepers
from agentd.model import Grant, Job, Round
from agentd.records import Allowance, Purpose
from wire.bounds import MAX_TERMINAL, TERM
from wire.messages import CloseShell, OpenShell, Outcome, Phase, RoundState, ShellEnded, ShellOpened
from wire.template import TemplateError

MAX_SHELLS: Final = 16
"""On one node at once."""
STOP_SIGNAL: Final = 1
STOP_GRACE_S: Final = 0.5
_FIND_SHELL: Final = "command -v bash >/dev/null && exec bash --noprofile --norc -i; exec sh -i"
_PHASES: Final = (Phase.PREPARATION,)
"""Whose directories one may look into: a release's goes with it."""


@dataclass(slots=True)
class Shell:
    """One shell, from its order to its end."""

    number: int
    keeper: str
    template: Template
    values: list[str]
    directory: str
    columns: int
    rows: int
    elevated: bool
    asked: bool = False
    """Its terminal was asked for."""

    @property
    def key(self) -> str:
        return f"shell.{self.number}"


class Shells:
    """Invariant: each has a keeper that is not known to be dead, and its end is said once."""

    def __init__(self, desk: Desk, keepers: Keepers) -> None:
        self._desk = desk
        self._keepers = keepers
        self._all: dict[int, Shell] = {}

    # ---- orders

    def order(self, order: OpenShell | CloseShell) -> None:
        """Start one, or say why not; or end one, as nobody looks at it any more."""
        if isinstance(order, CloseShell):
            if (shell := self._all.get(order.shell)) is not None:
                self._over(shell, None)
            else:
                self._desk.ready.chores.append(EndTerminal(order.shell, None))  # nobody reads the rest of it
            self._desk.send(ShellEnded(order.shell, None, None, "it was closed"))
            return
        if order.shell in self._all:
            return
        try:
            self._all[order.shell] = self._made(order)
        except (CommandRefused, TemplateError) as error:
            self._desk.send(ShellEnded(order.shell, None, None, str(error)))

    def _made(self, order: OpenShell) -> Shell:
        job = self._desk.ledger.jobs.get(order.job)
        held = self._desk.ledger.round(order.job, order.round)
        if job is None or held is None or not held.open or held.state is RoundState.RELEASING:
            raise CommandRefused("the job is over there: its directories are gone, or about to go")
        if len(self._all) >= MAX_SHELLS:
            raise CommandRefused(f"{MAX_SHELLS} shells are open on the node: close one first")
        template, values, directory, allowance = self._looking_into(job, held, order)
        term = order.term if TERM.fullmatch(order.term) else "dumb"
        template = msgspec.structs.replace(
            template, id=f"shell.{order.shell}", argv=["sh", "-c", _FIND_SHELL], env={**template.env, "TERM": term},
            stage=None, timeout_s=None, stop_signal=STOP_SIGNAL, stop_grace_s=STOP_GRACE_S, leave_running=False,
            leased=False,
        )  # fmt: skip
        keeper = self._keepers.start(order.job, order.round, Purpose.SHELL, allowance)
        columns, rows = (max(1, min(size, MAX_TERMINAL)) for size in (order.columns, order.rows))
        return Shell(order.shell, keeper.name, template, values, directory, columns, rows, allowance.elevated)

    def _looking_into(self, job: Job, held: Round, order: OpenShell) -> tuple[Template, list[str], str, Allowance]:
        """What the command had: its texts, its directory, its rights and limits."""
        config, attempt = self._desk.config, max(1, order.attempt)
        if order.phase is not None:
            block = job.spec.preparation
            if order.phase not in _PHASES or block is None:
                raise CommandRefused("the job has no such command")
            template = phase_template(config, job, held, order.phase, attempt, 0)
            directory = phase_directory(order.job, order.phase, attempt)
            return template, [], directory, Allowance(block.command.elevated)
        if not 0 <= order.group < len(job.spec.groups):
            raise CommandRefused("the job has no such task")
        texts = TaskTexts(config, job, order.group, held.prep.attempts)
        if texts.failure is not None:
            raise CommandRefused(texts.failure)
        if not 0 <= order.index < texts.sweep.size:
            raise CommandRefused("the job has no such task")
        grant = Grant(0, order.job, order.round, order.group, order.index, 1, 1, attempt, bytearray(1), 1)
        gpus = ("",) if texts.spec.needs.gpus else ()
        return *texts.item(grant, 0, 0, gpus), texts.allowance

    def session_over(self) -> None:
        """Who looked at them can't any more."""
        for shell in list(self._all.values()):
            self._over(shell, None)

    # ---- steps

    def advance(self) -> None:
        """Ask for a terminal for each whose keeper is up."""
        for shell in self._all.values():
            keeper = self._keepers.all.get(shell.keeper)
            if not shell.asked and keeper is not None and keeper.usable:
                shell.asked = True
                order = OpenTerminal(shell.number, keeper.job, shell.elevated, shell.columns, shell.rows)
                self._desk.ready.chores.append(order)

    def terminal_opened(self, event: TerminalOpened) -> None:
        """It has a terminal: the shell itself can start."""
        shell = self._all.get(event.shell)
        if shell is None:
            self._desk.ready.chores.append(EndTerminal(event.shell, None))
            return
        keeper = self._keepers.all.get(shell.keeper)
        if event.device is None or keeper is None or not keeper.usable:
            self._over(shell, ShellEnded(shell.number, None, None, event.failure or "its keeper died"))
            return
        template = msgspec.structs.replace(shell.template, terminal=event.device)
        keeper.items[shell.key] = (0, 0)
        self._keepers.teach(keeper, template)
        self._desk.say(keeper.name, RunItems(items=[(shell.key, template.id, shell.values, shell.directory)]))
        self._desk.send(ShellOpened(shell.number, f"{self._desk.config.root}/workitems/{shell.directory}/wd"))

    def _over(self, shell: Shell, said: ShellEnded | None, *, kill: bool = True) -> None:
        del self._all[shell.number]
        self._desk.ready.chores.append(EndTerminal(shell.number, said))
        keeper = self._keepers.all.get(shell.keeper)
        if keeper is not None and kill:
            self._keepers.kill(keeper)

    # ---- what keepers say

    def ended(self, keeper: Keeper, said: ItemEnded) -> None:
        """The shell, or what was to be one, is over."""
        keeper.items.pop(said.key, None)
        self._keepers.recorded(keeper, said.seq)
        self._keepers.retire(keeper, 0.0)
        if (shell := self._of(keeper)) is not None:
            well = said.outcome is Outcome.EXITED
            reason = None if well else said.reason or "it was ended"
            self._over(shell, ShellEnded(shell.number, said.exit_code, said.signal, reason), kill=False)

    def greeted(self, keeper: Keeper, keys: list[str]) -> None:
        """One that an earlier life of this agent started: its terminal went with that."""
        for key in keys:
            keeper.items[key] = (0, 0)
        if self._of(keeper) is None:
            for key in keys:
                self._desk.say(keeper.name, StopItem(key=key, reason="Its terminal is gone."))

    def settled(self, keeper: Keeper) -> None:
        """It has said all that it had to say."""
        if self._of(keeper) is None and not keeper.items:
            self._keepers.retire(keeper, 0.0)

    def recalled(self, keeper: Keeper, keys: list[str]) -> None:
        """It will not run its shell."""
        for key in keys:
            keeper.items.pop(key, None)
        if (shell := self._of(keeper)) is not None:
            self._over(shell, ShellEnded(shell.number, None, None, "it could not be started"))

    def keeper_dead(self, keeper: Keeper, started: frozenset[str], ends: tuple[ItemEnded, ...], reason: str) -> None:
        """Its keeper and all that it started are gone."""
        if (shell := self._of(keeper)) is not None:
            self._over(shell, ShellEnded(shell.number, None, None, reason or "its keeper died"), kill=False)

    def _of(self, keeper: Keeper) -> Shell | None:
        return next((shell for shell in self._all.values() if shell.keeper == keeper.name), None)

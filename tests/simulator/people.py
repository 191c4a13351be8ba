"""People: they submit, ask again until they are answered, terminate, delete, and remember what they were told."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from tests.simulator.coordinator import HOST
from tests.simulator.network import Connection, Network
from tests.simulator.society import HOME, Certificate, Credentials
from tests.simulator.workload import Act, Submission
from tests.simulator.world import World
from wire.codec import ProtocolError
from wire.connection import Connection as Rules
from wire.messages import (
    PROTOCOL_VERSION,
    Disabling,
    Goodbye,
    Hello,
    JobDelete,
    JobDisable,
    JobEnable,
    JobRetry,
    JobSet,
    JobTerminate,
    Message,
    NodeEnable,
    Refused,
    Reply,
    Role,
    Submit,
    TaskCancel,
    Welcome,
)

ANSWER_S: Final = 15.0
AGAIN_S: Final = 1.0
RETRY_AGAIN_S: Final = 8.0
RETRIES: Final = 6
ENABLES: Final = 30


class Request:
    """One command: it dials, asks, and asks again on a new connection until there is an answer."""

    def __init__(
        self,
        world: World,
        network: Network,
        host: str,
        make: Callable[[int], Message],
        answered: Callable[[Message], None],
        credentials: Callable[[], Credentials] = lambda: HOME,
    ) -> None:
        self.world = world
        self.network = network
        self.host = host
        self.make = make
        self.answered = answered
        self.credentials = credentials
        """What there is to show just now; None: nothing, so it waits."""
        self.done = False
        self.tries = 0
        self._connection: Connection | None = None
        self._role = Role.ADMIN
        self._rules = Rules(Role.ADMIN)
        self._dial()

    def _dial(self) -> None:
        if self.done:
            return
        shown = self.credentials()
        if shown is None:
            self.world.after(AGAIN_S, self._dial)
            return
        self._role = shown.role if isinstance(shown, Certificate) else Role.ADMIN
        self.tries += 1
        self.network.dial(self.host, HOST, self._dialled, shown)

    def _dialled(self, connection: Connection | None) -> None:
        if connection is None:
            self.world.after(AGAIN_S, self._dial)
            return
        connection.ends[0] = self
        self._connection, self._rules = connection, Rules(self._role)
        connection.send(0, self._rules.send(Hello(PROTOCOL_VERSION, self._role)))
        self.world.after(ANSWER_S, self._too_long, self.tries)

    def _too_long(self, tries: int) -> None:
        if not self.done and self.tries == tries:
            self._again()

    def _again(self) -> None:
        if self._connection is not None:
            self._connection.close(0)
            self._connection = None
            self.tries += 1
            self.world.after(AGAIN_S, self._dial)

    def received(self, data: bytes) -> None:
        try:
            self._rules.receive_bytes(data)
            while (message := self._rules.next_event()) is not None:
                self._take(message)
        except ProtocolError:
            self._again()

    def ended(self) -> None:
        if not self.done:
            self._again()

    def _take(self, message: Message) -> None:
        match message:
            case Welcome():
                assert self._connection is not None
                self._connection.send(0, self._rules.send(self.make(1)))
            case Reply() | Refused():
                self.done = True
                assert self._connection is not None
                self._connection.close(0)
                self._connection = None
                self.answered(message)
            case Goodbye():
                self._again()
            case _:
                raise AssertionError(f"an answer of kind {type(message).__name__}")


class People:
    """All who use the cluster, at one host."""

    def __init__(self, world: World, network: Network, host: str = "people") -> None:
        self.world = world
        self.network = network
        self.host = host
        self.submissions: list[Submission] = []
        self.told: dict[str, list[str]] = {}
        """By submission: the job ids that were acknowledged."""
        self.refused: dict[str, str] = {}
        self.lies: list[str] = []
        """Answers that contradict earlier ones."""
        self.deleted: set[str] = set()
        self.open = 0
        self.calm = False
        """Nobody begins anything any more."""
        self.credentials: Callable[[str], Credentials] = lambda name: HOME
        """What a person has to show, by name; whoever has none came over the socket."""

    def plan(self, submissions: list[Submission], acts: list[Act]) -> None:
        """Everything they will do."""
        self.submissions = submissions
        for number, submission in enumerate(submissions):
            self.world.at(submission.at, self.submit, number)
        for act in acts:
            self.world.at(act.at, self.act, act)

    def act(self, act: Act) -> None:
        match act.verb:
            case "submit":
                self.submit(act.submission)
            case "terminate":
                for job in self.told.get(self.submissions[act.submission].text, []):
                    self.terminate(job, by=act.by)
            case "delete":
                for job in self.told.get(self.submissions[act.submission].text, []):
                    self.delete(job, by=act.by)
            case _:
                for job in self.told.get(self.submissions[act.submission].text, []):
                    self.steer(job, act)

    def ask(self, make: Callable[[int], Message], answered: Callable[[Message], None], by: str = "") -> Request:
        self.open += 1

        def over(message: Message) -> None:
            self.open -= 1
            answered(message)

        return Request(self.world, self.network, self.host, make, over, lambda: self.credentials(by))

    def submit(self, number: int) -> None:
        submission = self.submissions[number]
        self.world.note(self.host, f"submit {submission.text}")
        self.ask(
            lambda request: Submit(request=request, submission=submission.text, document=dict(submission.document)),
            lambda answer: self._submitted(submission.text, answer),
            submission.author,
        )

    def _submitted(self, text: str, answer: Message) -> None:
        if isinstance(answer, Refused):
            self.world.note(self.host, f"{text} refused: {answer.message}")
            self.refused[text] = answer.message
            if text in self.told:
                self.lies.append(f"{text} was acknowledged as {self.told[text]}, then refused: {answer.message}")
            return
        assert isinstance(answer, Reply)
        ids = [job["id"] for job in answer.body["jobs"]]
        self.world.note(self.host, f"{text} is {ids}")
        if self.told.setdefault(text, ids) != ids:
            self.lies.append(f"{text} was acknowledged as {self.told[text]}, then as {ids}")

    def terminate(self, job: str, force: bool = False, by: str = "") -> None:
        self.world.note(self.host, f"terminate {job}")
        self.ask(lambda request: JobTerminate(request, job, force=force), lambda answer: self._ended(job, answer), by)

    def update(self, text: str, document: dict[str, Any]) -> None:
        """Change live pools."""
        self.ask(
            lambda request: Submit(request=request, submission=text, document=document, update_pool=True),
            lambda answer: self.world.note(self.host, f"update of pools: {_outcome(answer)}"),
        )

    def enable_node(self, node: str) -> None:
        self.ask(lambda request: NodeEnable(request, node), lambda answer: None)

    def delete(self, job: str, by: str = "") -> None:
        self.world.note(self.host, f"delete {job}")
        self.ask(lambda request: JobDelete(request, job), lambda answer: self._deleted(job, answer), by)

    def steer(self, job: str, act: Act) -> None:
        """What is neither its beginning nor its end."""
        self.world.note(self.host, f"{act.verb} {act.how} {job}")
        if act.verb == "enable":
            self.enable(job, act.by, ENABLES)
        elif act.verb == "retry":
            self._retry(job, act.by, RETRIES)
        else:
            self.ask(lambda request: self._order(request, job, act), partial(self._steered, act.verb, job), act.by)

    def _order(self, request: int, job: str, act: Act) -> Message:
        match act.verb:
            case "disable":
                return JobDisable(request, job, Disabling(act.how))
            case "set":
                return JobSet(request=request, job=job, priority=act.number, parallel=abs(act.number) % 4)
            case "cancel":
                return TaskCancel(request, f"{job}/{self._some_task(job, act)}")
            case _:
                raise AssertionError(act.verb)

    def enable(self, job: str, by: str = "", tries: int = 1) -> None:
        """Once more, while what runs of it is being stopped."""

        def answered(answer: Message) -> None:
            self._steered("enable", job, answer)
            if isinstance(answer, Refused) and "is being disabled" in answer.message and tries > 1 and not self.calm:
                self.world.after(AGAIN_S, self.enable, job, by, tries - 1)

        self.ask(lambda request: JobEnable(request, job), answered, by)

    def _retry(self, job: str, by: str, tries: int) -> None:
        """Once more, while the job is not over."""

        def answered(answer: Message) -> None:
            self._steered("retry", job, answer)
            if isinstance(answer, Refused) and "only what is completed" in answer.message and tries > 1:
                self.world.after(RETRY_AGAIN_S, self._retry, job, by, tries - 1)

        if not self.calm:
            self.ask(lambda request: JobRetry(request, job), answered, by)

    def _some_task(self, job: str, act: Act) -> str:
        specs = self.submissions[act.submission].document["jobs"]
        spec = next(spec for spec in specs if job.startswith(f"{spec['name']}-"))
        group = spec["groups"][act.number % len(spec["groups"])]
        return f"{group['name']}#{act.number % 7}"

    def _steered(self, verb: str, job: str, answer: Message) -> None:
        self.world.note(self.host, f"{verb} {job}: {_outcome(answer)}")

    def _ended(self, job: str, answer: Message) -> None:
        self.world.note(self.host, f"terminate {job}: {_outcome(answer)}")

    def _deleted(self, job: str, answer: Message) -> None:
        self.world.note(self.host, f"delete {job}: {_outcome(answer)}")
        if isinstance(answer, Reply):
            self.deleted.add(job)


def _outcome(answer: Any) -> str:
    return "done" if isinstance(answer, Reply) else f"refused, {answer.message}"

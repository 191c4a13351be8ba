"""What people ask of the simulated cluster: random jobs as spec documents, and what is done to them at which moment."""

from __future__ import annotations

import enum
import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Final

import msgspec

from tests.simulator.society import PEOPLE
from tests.simulator.staging import bring
from wire.messages import START_JOB
from wire.spec import SpecDocument

PROGRAM: Final = "simulated"


@dataclass(frozen=True)
class Character:
    """How commands of one block behave; each attempt draws its own fate from it. Travels in their argv."""

    duration_s: tuple[float, float] = (0.1, 3.0)
    fail: float = 0.0
    fail_first: int = 0
    """The first so many attempts of one task (or of one phase on one node) fail."""
    bad_nodes: tuple[str, ...] = ()
    """It fails on these, always."""
    hang: float = 0.0
    signalled: float = 0.0
    ignores_term: float = 0.0
    daemon: float = 0.0
    unstartable: float = 0.0

    def text(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def parse(text: str) -> Character:
        return msgspec.json.decode(text, type=Character)


class Kind(enum.Enum):
    START = "start"
    PREPARATION = "prep"
    TASK = "task"
    RELEASE = "release"


def command(kind: Kind, character: Character, **options: Any) -> dict[str, Any]:
    """A spec `Command` whose argv says who it is: rendered on the node, it proves the templates on the way."""
    job = START_JOB if kind is Kind.START else ["run", "job.id"]
    argv: list[Any] = [PROGRAM, kind.value, job, ["run", "node.id"]]
    if kind is Kind.TASK:
        argv += [["run", "task.id"], ["run", "task.index"], ["run", "attempt"]]
    return {"argv": [*argv, character.text()], **options}


def start_command(nasty: float) -> dict[str, Any]:
    """A pool's start: the attempts of one that is nasty fail, hang, leave daemons and die in every second case."""
    character = Character(
        duration_s=(0.2, 3.0), fail=0.3 * nasty, fail_first=1 if nasty else 0, hang=0.1 * nasty, daemon=0.6,
        ignores_term=0.3 * nasty,
    )  # fmt: skip
    return command(Kind.START, character, retries=2, timeout_ms=8_000, backoff={"first_ms": 200, "cap_ms": 2000})


def document(*jobs: dict[str, Any], pools: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    """A document as `dsl.compile` would make it: every field is there, defaults too, and it fits the types."""
    raw = {"pools": list(pools), "jobs": list(jobs)}
    return msgspec.to_builtins(msgspec.convert(raw, SpecDocument))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Act:
    """Something a person does: `submit` the document again, `terminate`, `delete`, `disable`, `enable`, `set`, `retry`,
    `cancel`."""

    at: float
    verb: str
    submission: int
    by: str = ""
    """A person's name; without one whoever sits at the coordinator."""
    how: str = ""
    """For `disable`."""
    number: int = 0
    """For `set` a priority and `parallel`, for `cancel` which task."""


@dataclass(frozen=True)
class Submission:
    at: float
    text: str
    document: Mapping[str, Any]
    author: str = ""


QUICK_S: Final = (0.01, 0.1, 1.0, 4.0)
SHORTEST_TIMEOUT_MS: Final = 2_000
SLOW_S: Final = (4.0, 20.0)


def random_character(
    rng: random.Random, nodes: tuple[str, ...], nasty: float, tempo: tuple[float, ...] = QUICK_S
) -> Character:
    """`nasty` from 0 (well behaved) to 1; `tempo` are shortest durations."""

    def maybe(probability: float, value: float) -> float:
        return value if rng.random() < probability * nasty else 0.0

    low = rng.choice(tempo)
    return Character(
        duration_s=(low, low * rng.choice((1, 3) if low > 10 else (1, 3, 10))),
        fail=maybe(0.4, rng.choice((0.1, 0.5))),
        fail_first=rng.choice((0, 0, 1, 2)) if rng.random() < nasty * 0.5 else 0,
        bad_nodes=tuple(sorted(rng.sample(nodes, 1))) if nodes and rng.random() < 0.2 * nasty else (),
        hang=maybe(0.3, rng.choice((0.1, 0.4))),
        signalled=maybe(0.2, 0.2),
        ignores_term=maybe(0.4, rng.choice((0.3, 1.0))),
        daemon=maybe(0.4, rng.choice((0.3, 1.0))),
        unstartable=maybe(0.15, 0.3),
    )


def _backoff(rng: random.Random) -> dict[str, int] | None:
    return rng.choice((None, {"first_ms": 200, "cap_ms": 2000}, {"first_ms": 2000, "cap_ms": 8000}))


def _timeout_ms(rng: random.Random, character: Character, always: bool) -> int | None:
    if character.hang or always or rng.random() < 0.3:
        return rng.choice((SHORTEST_TIMEOUT_MS, 8_000, 30_000))
    return None


def _retries(rng: random.Random, character: Character) -> int | None:
    """Without limit only where it succeeds some day."""
    hopeless = character.bad_nodes or character.duration_s[1] > SHORTEST_TIMEOUT_MS / 1000
    return None if rng.random() < 0.1 and not hopeless else rng.choice((0, 1, 3))


def random_job(
    rng: random.Random, name: str, pool: str, nodes: tuple[str, ...], slots: int, nasty: float
) -> dict[str, Any]:
    """One job. Everything in it ends by itself within a bound, or by a timeout."""

    def shared(character: Character, always: bool = False) -> dict[str, Any]:
        return {
            "timeout_ms": _timeout_ms(rng, character, always),
            "backoff": _backoff(rng),
            "stop_grace_ms": rng.choice((500, 2_000, 10_000)),
        }

    job: dict[str, Any] = {
        "name": name,
        "pool": pool,
        "priority": rng.choice((0, 0, 0, -5, 10)),
        "finish": "manual" if rng.random() < 0.15 else "when_done",
        "release_grace_ms": rng.choice((5_000, 30_000, 120_000)),
        "stop_after": rng.choice((1, 2)) if rng.random() < 0.15 else None,
        "parallel": rng.choice((1, 2, 5)) if rng.random() < 0.2 else None,
        "timeout_ms": rng.choice((20_000, 90_000)) if rng.random() < 0.15 else None,
        "dirs": [{"name": "data", "fresh": rng.random() < 0.5}] if rng.random() < 0.2 else [],
        "groups": [],
    }
    if rng.random() < 0.8:
        character = random_character(rng, nodes, nasty)
        job["preparation"] = {
            "command": command(
                Kind.PREPARATION, character, retries=_retries(rng, character), **shared(character, always=True)
            ),
            "wait": rng.random() < 0.8,
            "rerun_after_reboot": rng.random() < 0.65,
            "parallel": 1 if rng.random() < 0.2 else None,
        }
    if rng.random() < 0.8:
        character = random_character(rng, nodes, nasty)
        job["release"] = {
            "command": command(
                Kind.RELEASE, character, retries=rng.choice((0, 1, 2)), **shared(character, always=True)
            ),
            "parallel": 1 if rng.random() < 0.2 else None,
        }
    tempo = SLOW_S if rng.random() < 0.4 else QUICK_S
    for position in range(rng.choice((1, 1, 2, 3))):
        character = random_character(rng, nodes, nasty, tempo)
        axes: list[dict[str, Any]] = []
        if rng.random() < 0.8:
            axes.append({"names": ["i"], "range": (1, rng.choice((1, 3, 8, 20)), 1)})
        if rng.random() < 0.2:
            axes.append({"names": ["who"], "values": ["fx", "it's", "x y"][: rng.randint(1, 3)]})
        job["groups"].append(
            {
                "name": f"g{position}",
                "axes": axes,
                "command": command(
                    Kind.TASK,
                    character,
                    retries=rng.choice((0, 0, 1, 3)),
                    keep_ms=rng.choice((0, 0, 0, 2_000, 40_000)),
                    **shared(character),
                ),
                "slots": rng.randint(1, slots) if rng.random() < 0.2 else 1,
                "after": [{"group": rng.randrange(position)}] if position and rng.random() < 0.6 else [],
            }
        )
    _refine(random.Random(json.dumps(job, sort_keys=True)), job["groups"])
    return job


ARMS: Final[tuple[dict[str, Any], ...]] = (
    {"codes": [[75, 75]], "action": "retry", "times": 2},
    {"codes": [[1, 1], [137, 137]], "action": "fail"},
    {"codes": [[3, 3]], "action": "retry", "times": 1, "elsewhere": True},
    {"codes": [[70, 80]], "action": "retry", "elsewhere": True},
    {"signals": [11], "action": "retry", "times": 1},
    {"codes": [[130, 140]], "action": "succeed"},
    {"causes": ["timeout"], "action": "retry", "times": 1},
    {"codes": [[1, 1]], "action": "stop"},
    {"causes": ["else"], "action": "fail"},
)
"""Of the ends that simulated commands come to."""


def _refine(rng: random.Random, groups: list[dict[str, Any]]) -> None:
    """Conditions by value and by other ends, arms and what is optional, drawn apart so that plans stay as they were."""
    for group in groups:
        group["optional"] = rng.random() < 0.2
        if rng.random() < 0.4:
            group["command"]["arms"] = [rng.choice(ARMS) for _ in range(rng.randint(1, 3))]
        if rng.random() < 0.15:
            group["axes"].reverse()
        for after in group["after"]:
            other = groups[after["group"]]
            both = sorted(_axes_of(group) & _axes_of(other))
            after["axes"] = rng.sample(both, rng.randint(1, len(both))) if both and rng.random() < 0.7 else []
            whens = ("succeeded", "succeeded", "done") if other["optional"] else ("succeeded", "done", "failed")
            after["when"] = rng.choice(whens)
        if group["after"] and rng.random() < 0.3:
            more = {"group": group["after"][0]["group"], "when": "done", "axes": []}
            group["after"] += [more] if more not in group["after"] else []


def _axes_of(group: dict[str, Any]) -> set[str]:
    return {name for axis in group["axes"] for name in axis["names"]}


def random_workload(
    rng: random.Random, pool: dict[str, Any], nodes: tuple[str, ...], slots: int, jobs: int, nasty: float, span_s: float
) -> tuple[list[Submission], list[Act]]:
    """Submissions over the first third of the run, and people's acts at any moment of it."""
    submissions: list[Submission] = []
    acts: list[Act] = []
    for number in range(jobs):
        at = rng.uniform(0.1, span_s / 3)
        count = 2 if rng.random() < 0.15 else 1
        specs = [random_job(rng, f"j{number}{'ab'[k]}", pool["name"], nodes, slots, nasty) for k in range(count)]
        for spec in specs:
            bring(spec)
        submissions.append(Submission(at, f"submission-{number}", document(*specs, pools=(pool,))))
        if rng.random() < 0.3:
            acts.append(Act(rng.uniform(at, span_s), "submit", number))
        if rng.random() < 0.35:
            acts.append(Act(rng.uniform(at, span_s), "terminate", number))
        if rng.random() < 0.3:
            acts.append(Act(rng.uniform(at, span_s), "delete", number))
    return submissions, acts


def steering(rng: random.Random, submissions: list[Submission], span_s: float) -> list[Act]:
    """What is done to jobs while they live and after: each is enabled again some time after it was disabled."""
    acts: list[Act] = []
    for number, submission in enumerate(submissions):
        at = partial(rng.uniform, submission.at, span_s)
        if rng.random() < 0.4:
            start, how = at(), rng.choice(("requeue", "terminate", "wait"))
            acts.append(Act(start, "disable", number, how=how))
            acts.append(Act(start + rng.uniform(0.5, 25.0), "enable", number))
        if rng.random() < 0.3:
            acts.append(Act(at(), "set", number, number=rng.randint(-9, 9)))
        if rng.random() < 0.5:
            acts.append(Act(at(), "retry", number))
        for _ in range(rng.choice((0, 0, 1, 3))):
            acts.append(Act(at(), "cancel", number, number=rng.randrange(100)))
    return acts


TELLS: Final = 0.4
"""Of the jobs of people."""
ELEVATED: Final = 0.4
"""Of the commands of a job that has some."""
NEEDS: Final[tuple[dict[str, Any], ...]] = (
    {"cpus": 1.5}, {"cpus": 1.5}, {"memory_bytes": 3 << 30}, {"cpus": 0.5}, {"gpus": 1}, {"gpus": 1}, {"gpus": 1},
    {"gpus": 2}, {"disk_bytes": 3 << 30}, {"others": {"licence": 1.0}}, {"labels": ["fast"]}, {"labels": ["zone=b"]},
)  # fmt: skip


def among_people(
    rng: random.Random, submissions: list[Submission], acts: list[Act], span_s: float
) -> tuple[list[Submission], list[Act]]:
    """The same work, but each document has an author, some commands want more rights than others, and people meddle
    with each other's jobs."""
    writers = [person.name for person in PEOPLE if person.writes_jobs]
    written = []
    for submission in submissions:
        changed = json.loads(json.dumps(submission.document))
        author = rng.choice(writers)
        if rng.random() < 0.5:
            _elevate(rng, changed)
            author = rng.choice(("alice", "alice", author))
        if rng.random() < 0.6:
            _need(rng, changed)
        _tell(changed)
        written.append(Submission(submission.at, submission.text, changed, author))
    meddled = [replace(act, by=_who(rng, written[act.submission].author)) for act in acts]
    for number in range(len(written)):
        if rng.random() < 0.5:
            verb = rng.choice(("terminate", "delete"))
            meddled.append(Act(rng.uniform(written[number].at, span_s), verb, number, rng.choice(("mallory", "vera"))))
    return written, meddled


def _who(rng: random.Random, author: str) -> str:
    return author if rng.random() < 0.7 else rng.choice([person.name for person in PEOPLE])


def _tell(document: dict[str, Any]) -> None:
    """Some have a command run when they are over; drawn apart, so that plans stay as they were."""
    for job in document["jobs"]:
        if random.Random(json.dumps(job, sort_keys=True)).random() < TELLS:
            job["on_end"] = ["tell", ["run", "job.id"]]


def _elevate(rng: random.Random, document: dict[str, Any]) -> None:
    for job in document["jobs"]:
        blocks = [job["preparation"], job["release"], *job["groups"]]
        for block in blocks:
            if block is not None and rng.random() < ELEVATED:
                block["command"]["elevated"] = True


def _need(rng: random.Random, document: dict[str, Any]) -> None:
    for job in document["jobs"]:
        for spec in job["dirs"]:
            spec["size_bytes"] = rng.choice((None, 3 << 30, 4 << 30))
        if not job["dirs"] and rng.random() < 0.3:
            job["dirs"] = [{"name": "data", "size_bytes": 3 << 30, "fresh": False}]
        for group in job["groups"]:
            if rng.random() < 0.7:
                group["needs"] = {**group["needs"], **rng.choice(NEEDS)}

"""Files that commands bring in, in the simulated world: what people upload, what lies on a machine, and how it goes."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any, Final

from agentd import keeper as k

BROUGHT: Final = 0.2
"""Of the jobs, some of whose commands bring files in."""
PIECE: Final = 400
CONTENTS: Final = {
    hashlib.sha256(content).hexdigest(): content for content in (bytes([n]) * size for n, size in ((1, 300), (2, 1500)))
}
"""What was uploaded before any job named it."""
GONE: Final = hashlib.sha256(b"gone").hexdigest()
"""Named, and not to be had any more."""


def bring(spec: dict[str, Any]) -> None:
    """Give some commands of a job files. Chance is what the job is, so that other jobs stay what they are."""
    rng = random.Random(json.dumps(spec, sort_keys=True))
    if rng.random() >= BROUGHT:
        return
    for block in (spec.get("preparation"), spec.get("release"), *spec["groups"]):
        if block is not None and rng.random() < 0.6:
            _bring(rng, block["command"], of_task="name" in block)


def _bring(rng: random.Random, command: dict[str, Any], *, of_task: bool) -> None:
    fate = {"fail": rng.choice((0.0, 0.0, 0.2, 0.6)), "seconds": rng.choice((0.01, 0.3, 3.0))}
    command["files"] = [{"path": "fate", "text": json.dumps(fate)}]
    for digest, content in CONTENTS.items():
        if rng.random() < 0.5:
            command["files"].append({"path": f"in/{digest[:8]}", "digest": digest, "size_bytes": len(content)})
    if rng.random() < 0.1 and command["retries"] is not None:  # else it would be asked for for ever
        command["files"].append({"path": "in/gone", "digest": GONE, "size_bytes": 9})
    if rng.random() < 0.5 and not command.get("arms"):
        actions = ("retry", "succeed", "fail") if of_task else ("retry",)
        action = rng.choice(actions)
        times = rng.choice((None, 1, 2)) if action == "retry" else None
        command["arms"] = [{"causes": ["input"], "action": action, "times": times}]


class Staging:
    """What lies on one machine, and how the bringing in of each command's files ended."""

    def __init__(self, machine: str) -> None:
        self.machine = machine
        self.held: dict[tuple[str, str], bytes] = {}
        self.came: dict[str, bool] = {}
        """By the command's directory."""

    def take(self, job: str, digest: str, offset: int, content: bytes, size: int) -> tuple[int, bool]:
        """(bytes held, whether that is all)."""
        held = self.held.setdefault((job, digest), b"")
        if content and offset == len(held):
            held = self.held[job, digest] = held + content
        return len(held), len(held) == size

    def removed(self, job: str) -> None:
        for key in [key for key in self.held if key[0] == job]:
            del self.held[key]

    def fate(self, seed: int, spawn: k.Spawn) -> tuple[float, bool, str | None]:
        """How long it takes, whether all files come, and one that the agent was to have here and has not."""
        env = {name.decode(): value.decode() for name, value in spawn.env.items()}
        job = spawn.directory.partition("/")[0]
        fate, missing = {"fail": 0.0, "seconds": 0.01}, None
        for file in json.loads(env["PLAN"])["files"]:
            if "held" in file:
                held = self.held.get((job, file["sha256"]))
                if held is None or held != CONTENTS.get(file["sha256"]):
                    missing = file["path"]
            else:
                fate = json.loads(env[file["text"]])
        rng = random.Random(f"{seed}/{self.machine}/{spawn.directory}")
        comes = rng.random() >= fate["fail"]
        return rng.uniform(0.005, fate["seconds"]), comes, missing

"""What a command loads: short ones pay for click, msgpack and socket, those that read a file for the language too, and
all of them for nothing else of weight."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from coordinator.cli import entry
from tests.coordinator.standin import a_job, a_node, a_node_job, a_task, stand_in

ROOT = Path(__file__).parent.parent.parent
HEAVY = {
    *("msgspec", "trio", "lark", "structlog", "rich", "logging", "sqlite3", "asyncio", "subprocess", "tempfile"),
    *("ssl", "importlib.metadata", "concurrent", "email", "http", "typing_extensions", "dsl"),
}
OURS_AT_MOST = 20
"""Modules of the project that one short command loads."""
LANGUAGE_AT_MOST = 35
"""Those that reading a file loads beside them."""
OTHERS_AT_MOST = 12
"""Modules of the standard library beyond those of click, msgpack, socket and hashlib."""
SELDOM = {"hashlib", "_hashlib", "csv", "fractions", "decimal", "pathlib", "pickle", "urllib", "inspect", "difflib"}
"""What a plain file needs none of."""
OF_LANGUAGE = {"json", "json.decoder", "json.encoder", "json.scanner", "_json", "bisect", "_bisect", "gc", "zlib"}

LOADED = """
import sys
from coordinator.cli.entry import run_command
status = run_command(sys.argv[1:])
sys.stderr.write("\\n".join(sorted(sys.modules)))
sys.exit(status)
"""
BARE = 'import sys, click, msgpack, socket; sys.stderr.write("\\n".join(sorted(sys.modules)))'
FLOOR = 'import sys, click, msgpack, socket, hashlib; sys.stderr.write("\\n".join(sorted(sys.modules)))'

ANSWERS: dict[str, Any] = {
    "JobList": [a_job()],
    "JobShow": a_job(),
    "JobWait": a_job(),
    "JobNodes": [a_node_job()],
    "JobTerminate": a_job(),
    "JobDelete": {"id": "daily-3", "state": "deleted"},
    "TaskList": [a_task()],
    "TaskShow": {**a_task(), "history": []},
    "NodeList": [a_node()],
    "NodeShow": a_node(),
    "PoolList": [],
    "PoolShow": {"id": "risk", "nodes": 1, "slots": 8},
    "LogRead": {"content": b"text", "size": 4, "end": True},
    "FilesRead": {"content": b"text", "size": 4, "end": True},
    "FilesList": {"entries": [], "truncated": False},
    "Submit": {"jobs": [{"id": "daily-3", "name": "daily"}]},
}
SHORT = [
    "job list",
    "job show daily",
    "job wait daily",
    "job nodes daily",
    "job terminate daily",
    "job delete daily --yes",
    "task list daily",
    "task show daily/x",
    "node list",
    "node show risk-1",
    "pool list",
    "pool show risk",
    "logs daily/x --tail 3",
    "files ls risk-1",
    "files cat risk-1 x",
]


def loaded(code: str, arguments: list[str], socket: Path) -> set[str]:
    state = {"XDG_CACHE_HOME": str(socket.parent), "BATCH_COORDINATOR": str(socket)}
    ended = subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", **state},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return set(ended.stderr.split())


@pytest.fixture(scope="module")
def floor(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    return loaded(FLOOR, [], tmp_path_factory.mktemp("none"))


@pytest.mark.parametrize("command", SHORT)
def test_a_short_command_loads_nothing_of_weight(command: str, tmp_path: Path, floor: set[str]) -> None:
    with stand_in(tmp_path / "s", ANSWERS):
        modules = loaded(LOADED, command.split(), tmp_path / "s")
    tops = {module.partition(".")[0] for module in modules}
    assert sorted(HEAVY & (modules | tops)) == []
    ours = {module for module in modules if module.partition(".")[0] in ("coordinator", "wire")}
    assert len(ours) <= OURS_AT_MOST, sorted(ours)
    assert len(modules - ours - floor) <= OTHERS_AT_MOST, sorted(modules - ours - floor)


def test_json_costs_json_and_no_more(tmp_path: Path, floor: set[str]) -> None:
    with stand_in(tmp_path / "s", ANSWERS):
        modules = loaded(LOADED, ["job", "list", "-o", "json"], tmp_path / "s")
    assert sorted(HEAVY & modules) == []
    assert "json" in modules


@pytest.mark.parametrize("command", ["submit", "check"])
def test_a_command_that_reads_a_file_loads_the_language_and_nothing_else_of_weight(
    command: str, tmp_path: Path
) -> None:
    (tmp_path / "x.batch").write_text(
        "pool p { }\njob daily {\n  pool = p\n  task t for n in 1..9 { run = ['x'] }\n}\n"
    )
    with stand_in(tmp_path / "s", ANSWERS):
        assert "lark" in loaded(LOADED, [command, str(tmp_path / "x.batch")], tmp_path / "s")  # it makes the tables
        modules = loaded(LOADED, [command, str(tmp_path / "x.batch")], tmp_path / "s")
    bare = loaded(BARE, [], tmp_path / "s")
    ours = {module for module in modules if module.partition(".")[0] in ("coordinator", "wire", "dsl")}
    assert sorted(((HEAVY | SELDOM) - {"dsl"}) & (modules - bare)) == []
    assert len(ours) <= OURS_AT_MOST + LANGUAGE_AT_MOST, sorted(ours)
    assert len(modules - ours - bare - OF_LANGUAGE) <= OTHERS_AT_MOST, sorted(modules - ours - bare - OF_LANGUAGE)


def test_the_list_of_commands_loads_none_of_them(tmp_path: Path) -> None:
    modules = loaded(LOADED, ["--help"], tmp_path / "s")
    assert sorted(module for module in modules if module.startswith(("coordinator", "wire", "dsl"))) == [
        "coordinator",
        "coordinator.cli",
        "coordinator.cli.entry",
        "coordinator.cli.failure",
        "coordinator.cli.options",
        "coordinator.cli.output",
        "coordinator.render",
        "wire",
        "wire.columns",
    ]
    assert sorted(HEAVY & modules) == []


@pytest.mark.parametrize("name", entry.COMMANDS)
def test_the_list_of_commands_says_of_each_what_it_says_of_itself(name: str) -> None:
    context = entry.coordinator.make_context("coordinator", [], resilient_parsing=True)
    command = entry.coordinator.get_command(context, name)
    assert command is not None
    assert command.name == name
    assert " ".join((command.help or "").split()).startswith(entry.COMMANDS[name][1].removesuffix("."))
    (listed,) = [item for item in entry.coordinator.shell_complete(context, name) if item.value == name]
    assert listed.help == entry.COMMANDS[name][1]


def test_options_are_completed_beside_the_commands() -> None:
    context = entry.coordinator.make_context("coordinator", [], resilient_parsing=True)
    assert "--output" in [item.value for item in entry.coordinator.shell_complete(context, "--")]


def test_the_package_itself_loads_nothing(tmp_path: Path) -> None:
    modules = loaded('import sys, coordinator.cli; sys.stderr.write("\\n".join(sys.modules))', [], tmp_path / "s")
    assert sorted(module for module in modules if module.startswith(("coordinator", "wire", "click"))) == [
        "coordinator",
        "coordinator.cli",
    ]


def test_the_end_of_a_command_collects_nothing(tmp_path: Path) -> None:
    last = "import atexit, gc, sys; atexit.register(lambda: sys.stderr.write(str(gc.get_freeze_count())))\n"
    (frozen,) = loaded(f"{last}from coordinator.cli import main; main()", ["--version"], tmp_path / "s")
    assert int(frozen) > 1000

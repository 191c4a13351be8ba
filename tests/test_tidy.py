"""The house rules that no linter knows, held over every file of the checkout."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import distribution, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PACKAGES = ("wire", "dsl", "coordinator", "agentd")
THIS = Path("tests/test_tidy.py")

LONGEST = {True: 800, False: 600}
"""Lines of a file, by whether it holds tests, which are a list."""
LONGER_FOR_A_REASON = {
    "agentd/keeper.py": "run by path as one file with the standard library alone; it can import nothing of its own",
}
"""Files over the limit, each with the reason why it is one idea and not two."""

SLEEPS_FOR_A_REASON = {
    "tests/e2e/test_thousand.py": "small nodes that beat and dial again with the pauses that agents make",
    "tests/e2e/test_secure_faults.py": "a coordinator stands still for longer than a lease and its margin",
    "tests/wire/test_driver.py": "a commit that takes its time, on a clock that jumps",
}
"""Files of tests that may call a sleep, each with the reason why no event can be waited for."""

BANNED_WORDS = {
    "manager",
    "managers",
    "helper",
    "helpers",
    "util",
    "utils",
    "handler",
    "handlers",
    "info",
    "worker",
    "workers",
}
NAMES_FROM_OUTSIDE: set[str] = set()
"""Identifiers with a banned word that another library chose."""


@cache
def files() -> tuple[Path, ...]:
    """Every file of the checkout that is or could be committed, relative to its root."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    return tuple(path for name in sorted(set(listed.split("\0")) - {""}) if (ROOT / (path := Path(name))).is_file())


def sources(*below: str) -> list[Path]:
    return [
        path
        for path in files()
        if path.suffix == ".py" and path.parts[0] in (below or (*PACKAGES, "tests", "bench", "docs"))
    ]


@cache
def text_of(path: Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(text_of(path), filename=str(path))


def lines_with(pattern: re.Pattern[str], paths: Iterator[Path] | list[Path]) -> list[str]:
    return [
        f"{path}:{number}: {line.strip()[:100]}"
        for path in paths
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if pattern.search(line)
    ]


def test_nothing_is_left_to_do_later() -> None:
    left = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    assert lines_with(left, [path for path in files() if path != THIS]) == []


def test_no_file_names_a_machine_or_a_package_index() -> None:
    elsewhere = re.compile(
        r"(?<![\w.])/(work|root|home/\w+|Users)/(?!\$)"
        r"|pyp[i]|python[h]osted|index[-]url|find[-]links|trusted[-]host",
        re.IGNORECASE,
    )
    assert lines_with(elsewhere, [path for path in files() if path != THIS]) == []


def test_every_module_says_in_its_docstring_what_it_is() -> None:
    assert [str(path) for path in sources() if not ast.get_docstring(tree_of(path))] == []


def test_no_file_is_longer_than_one_idea() -> None:
    long = {str(path) for path in sources() if len(text_of(path).splitlines()) > LONGEST[path.parts[0] == "tests"]}
    assert sorted(long - LONGER_FOR_A_REASON.keys()) == []
    assert sorted(LONGER_FOR_A_REASON.keys() - long) == [], "these became short enough: take them off the list"


def identifiers(path: Path) -> Iterator[tuple[str, int]]:
    """The names that a file chooses itself: what it defines, takes and binds."""
    for node in ast.walk(tree_of(path)):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno
            case ast.arg(arg=name):
                yield name, node.lineno
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name, node.lineno
            case _:
                pass


def words(identifier: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", identifier)}


def test_no_name_is_one_of_the_words_that_say_nothing() -> None:
    chosen = [
        f"{path}:{line}: {name}"
        for path in sources()
        for name, line in identifiers(path)
        if words(name) & BANNED_WORDS and name not in NAMES_FROM_OUTSIDE
    ]
    modules = [str(path) for path in sources() if words(path.stem) & BANNED_WORDS]
    assert chosen + modules == []


def sleeps(path: Path) -> list[str]:
    """Calls of a sleep of the real clock, whatever it was imported as."""
    found: list[str] = []

    def visit(node: ast.AST) -> None:
        match node:
            case ast.AsyncFunctionDef(args=arguments) if {"autojump_clock", "mock_clock"} & {
                a.arg for a in arguments.args
            }:
                return  # time stands still there but for sleeps
            case (
                ast.Call(func=ast.Attribute(value=ast.Name(id="time" | "trio" | "asyncio"), attr=called))
                | ast.Call(func=ast.Name(id=called))
            ) if called in ("sleep", "sleep_until"):
                found.append(f"{path}:{node.lineno}")
            case _:
                pass
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree_of(path))
    return found


def test_no_test_waits_by_sleeping() -> None:
    asleep = {str(path): found for path in sources("tests", "bench") if (found := sleeps(path))}
    assert {path: found for path, found in asleep.items() if path not in SLEEPS_FOR_A_REASON} == {}
    assert sorted(SLEEPS_FOR_A_REASON.keys() - asleep.keys()) == [], "these no longer sleep: take them off the list"


def test_every_example_is_run_by_a_test() -> None:
    tests = "\n".join(text_of(path) for path in sources("tests") if path != THIS)
    examples = [path for path in files() if path.parts[0] == "examples" and path.suffix in {".batch", ".sh"}]
    ran = [path for path in examples if path.name in tests]
    by_a_script = "\n".join(text_of(path) for path in ran if path.suffix == ".sh")
    assert examples
    assert [str(path) for path in examples if path not in ran and path.name not in by_a_script] == []


def test_every_link_of_the_documents_leads_somewhere() -> None:
    dead = [
        f"{path}: {target}"
        for path in (path for path in files() if path.suffix == ".md")
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text_of(path))
        if "://" not in target and not (ROOT / path.parent / target).exists()
    ]
    assert dead == []


def test_every_make_target_that_a_document_names_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", text_of(Path("Makefile")), re.MULTILINE))
    named = {
        (str(path), target)
        for path in files()
        if path.suffix == ".md"
        for target in re.findall(r"(?:`|^\s*|&& )make ([a-z]+)", text_of(path), re.MULTILINE)
    }
    assert sorted((path, target) for path, target in named if target not in targets) == []


PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE)


def pins() -> dict[str, str]:
    """Name → version of every pin; a line that is none, or one without a digest, is a failure."""
    text = re.sub(r"^#.*\n|^\n", "", text_of(Path("constraints.txt")), flags=re.MULTILINE)
    assert PIN.sub("", text).strip() == ""
    return {canonicalize_name(name): version for name, version, _ in PIN.findall(text)}


def closure(requirements: list[str]) -> set[str]:
    """The distributions that these requirements need here, their own needs included."""
    needed: set[str] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in needed or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        needed.add(name)
        waiting.extend(Requirement(text) for text in distribution(name).requires or [])
    return needed


def test_t20_every_dependency_is_pinned_with_its_digests_and_nothing_else_is() -> None:
    project = tomllib.loads(text_of(Path("pyproject.toml")))
    asked = (
        project["project"]["dependencies"]
        + project["project"]["optional-dependencies"]["dev"]
        + project["build-system"]["requires"]
    )
    assert closure(asked) == pins().keys()


def test_t20_what_is_installed_is_what_is_pinned() -> None:
    assert {name: version(name) for name in pins()} == pins()


def test_t20_the_set_up_takes_nothing_whose_digest_it_does_not_know() -> None:
    makefile = text_of(Path("Makefile"))
    pip = re.search(r"^PIP := .*--no-deps --require-hashes$", makefile, re.MULTILINE)
    assert pip is not None
    others = re.findall(r"pip install.*", makefile.replace(pip[0], ""))
    assert others == ["pip install -qq --no-deps --no-build-isolation --editable ."]


def test_every_module_is_declared_pure_or_a_shell_and_none_is_both() -> None:
    """The purity contract of the import linter covers what it lists; so nothing may be in neither list."""
    project = tomllib.loads(text_of(Path("pyproject.toml")))["tool"]
    contract = next(each for each in project["importlinter"]["contracts"] if each["id"] == "pure")
    pure, shells = set(contract["source_modules"]), set(project["poolkeeper"]["shells"])
    modules = {".".join(path.with_suffix("").parts) for path in sources(*PACKAGES) if path.name != "__init__.py"}

    def is_shell(module: str) -> bool:
        return any(module == shell or module.startswith(f"{shell}.") for shell in shells)

    assert sorted(module for module in modules if not is_shell(module) and module not in pure) == []
    assert sorted(module for module in pure if is_shell(module)) == []


def test_the_keepers_core_is_as_pure_as_the_other_two() -> None:
    """The keeper is one file, so the import linter sees only the whole; this follows names from its core instead."""
    tree = tree_of(Path("agentd/keeper.py"))
    modules = {
        (alias.asname or alias.name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    definitions = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    reached, waiting = set[str](), ["KeeperCore"]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            calls = {
                f"{node.value.id}.{node.attr}"
                for node in ast.walk(definitions[name])
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules
                if not node.attr.isupper()  # a constant, as SIGKILL
            }
            assert sorted(calls) == [], f"{name}, which the keeper's core uses"
            names = {node.id for node in ast.walk(definitions[name]) if isinstance(node, ast.Name)}
            waiting.extend(names & definitions.keys())
    assert {"KeeperCore", "Template", "Ready"} <= reached


def test_what_starts_with_its_interpreter_can_be_run_by_its_name() -> None:
    scripts = [path for path in files() if (ROOT / path).read_bytes()[:2] == b"#!"]
    assert Path(".ci/run") in scripts
    assert [str(path) for path in scripts if not (ROOT / path).stat().st_mode & 0o111] == []

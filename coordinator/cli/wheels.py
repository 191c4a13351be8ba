"""Wheels of what is installed here, to carry along to hosts that can ask no package index.

A wheel is made from the files that an installed distribution records; of Poolkeeper itself, run from a checkout, from
its packages and its project file.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
import re
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final

from coordinator.cli.failure import failed, reason_of

NAME: Final = "poolkeeper"
_PACKAGES: Final = ("wire", "dsl", "agentd", "coordinator")
_OF_THE_INSTALLATION: Final = {"INSTALLER", "REQUESTED", "RECORD", "direct_url.json", "uv_cache.json"}
_MOMENT: Final = (1980, 1, 1, 0, 0, 0)  # the same files make the same wheel
_REQUIREMENT: Final = re.compile(r"\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)")


@dataclass(frozen=True, slots=True)
class _Content:
    """What goes into a wheel: its name's parts, what it needs, and its files by their place in it."""

    name: str
    version: str
    tag: str
    requirements: tuple[str, ...]
    files: dict[str, bytes]


def make_wheels(directory: Path, *, own: Path | None = None, alone: bool = False) -> list[Path]:
    """Wheels of Poolkeeper (`own`, if it is given) and, unless it goes `alone`, of everything it needs, as all of that
    is installed here. Raises Failure."""
    try:
        content = _ourselves()
        made = [own if own is not None else _written(content, directory)]
        if not alone:
            made += [_written(_installed(needed), directory) for needed in _closure(content.requirements)]
    except OSError as error:
        raise failed(f"no wheel could be made: {error.filename or directory}: {reason_of(error)}") from None
    return made


def _ourselves() -> _Content:
    found = importlib.util.find_spec(_PACKAGES[0])
    assert found is not None, "the package runs, so it is somewhere"
    base = Path(str(found.origin)).parent.parent
    if (base / "pyproject.toml").is_file():
        return _of_checkout(base)
    try:
        return _installed(distribution(NAME))
    except PackageNotFoundError:
        raise failed(
            "Poolkeeper is not installed here as a package, so no wheel can be made of it", "give one with --wheel FILE"
        ) from None


# ---- from a checkout


def _of_checkout(base: Path) -> _Content:
    project = tomllib.loads((base / "pyproject.toml").read_text("utf-8"))["project"]
    files = {
        path.relative_to(base).as_posix(): path.read_bytes()
        for package in _PACKAGES
        for path in sorted((base / package).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and not any(part.startswith(".") for part in path.parts)
    }
    notes = f"{NAME}-{project['version']}.dist-info"
    files[f"{notes}/METADATA"] = _metadata(project).encode()
    files[f"{notes}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: poolkeeper\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    scripts = "".join(f"{name} = {target}\n" for name, target in project["scripts"].items())
    files[f"{notes}/entry_points.txt"] = f"[console_scripts]\n{scripts}".encode()
    return _Content(NAME, project["version"], "py3-none-any", tuple(project["dependencies"]), files)


def _metadata(project: dict[str, Any]) -> str:
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {project['name']}",
        f"Version: {project['version']}",
        f"Summary: {project['description']}",
        f"Requires-Python: {project['requires-python']}",
        *(f"Requires-Dist: {requirement}" for requirement in project["dependencies"]),
    ]
    return "\n".join(lines) + "\n"


# ---- from what is installed


def _installed(found: Distribution) -> _Content:
    name = found.metadata["Name"]
    files: dict[str, bytes] = {}
    for file in found.files or ():
        kept = file.name not in _OF_THE_INSTALLATION or not file.parent.name.endswith(".dist-info")
        if kept and ".." not in file.parts and "__pycache__" not in file.parts and file.suffix != ".pyc":
            files[file.as_posix()] = Path(str(found.locate_file(file))).read_bytes()
    tags = re.findall(r"^Tag: *(\S+) *$", found.read_text("WHEEL") or "", re.MULTILINE)
    if not files or not tags:
        raise failed(
            f"{name} is not installed here from a wheel, so none can be made of it",
            "give a directory of wheels with --wheels DIR, or let the hosts ask an index with --pip-args",
        )
    return _Content(name, found.version, _compressed(tags), tuple(found.requires or ()), files)


def _compressed(tags: Iterable[str]) -> str:
    """`cp311-abi3-one` and `cp311-abi3-two` are `cp311-abi3-one.two` in a file's name."""
    columns = zip(*(tag.split("-", 2) for tag in tags), strict=True)
    return "-".join(".".join(dict.fromkeys(column)) for column in columns)


def _closure(requirements: Iterable[str]) -> Iterator[Distribution]:
    """What these need, their own needs included. One that only some platforms need may be missing."""
    waiting = list(requirements)
    seen = {NAME}
    while waiting:
        requirement, _, marker = waiting.pop().partition(";")
        match = _REQUIREMENT.match(requirement)
        name = re.sub(r"[-_.]+", "-", match[1]).lower() if match else ""
        if name in seen or "extra" in marker:
            continue
        try:
            found = distribution(name)
        except PackageNotFoundError:
            if marker:
                continue
            raise failed(f"{name or requirement}, which Poolkeeper needs, is not installed here") from None
        seen.add(name)
        waiting.extend(found.requires or ())
        yield found


# ---- the file


def _written(content: _Content, directory: Path) -> Path:
    """A wheel in `directory`. Raises OSError."""
    stem = f"{re.sub(r'[-_.]+', '_', content.name)}-{content.version}"
    path = directory / f"{stem}-{content.tag}.whl"
    notes = next((name.partition("/")[0] for name in content.files if ".dist-info/" in name), f"{stem}.dist-info")
    record = "".join(f"{name},sha256={_digest(text)},{len(text)}\n" for name, text in content.files.items())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, text in [*content.files.items(), (f"{notes}/RECORD", f"{record}{notes}/RECORD,,\n".encode())]:
            entry = zipfile.ZipInfo(name, _MOMENT)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, text)
    os.chmod(path, 0o644)
    return path


def _digest(text: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text).digest()).rstrip(b"=").decode()

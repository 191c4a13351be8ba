"""What was said and kept, in lines for a story: names and what is not default, times and bodies left out."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from wire import messages as m
from wire.instant import Instant

_UNTOLD = frozenset({"at", "spec", "document", "spans", "source", "submitted_at", "body", "request"})


def brief(said: Any) -> str:
    """A record or message in one line: its name and what is not default, times and bodies left out."""
    if isinstance(said, m.Reply):
        return f"Reply {brief_body(said.body)}"
    parts = []
    for member in msgspec.structs.fields(said):
        value = getattr(said, member.name)
        if member.name in _UNTOLD or value is None or value == member.default or (value in ([], {}, "") and value != 0):
            continue
        parts.append(f"{member.name}={brief_value(value)}")
    return " ".join([type(said).__name__, *parts])


def short(text: str) -> str:
    """Digests by their first digits."""
    return re.sub(r"\b([0-9a-f]{8})[0-9a-f]{56}\b", r"\1", text)


def brief_value(value: Any) -> str:
    if isinstance(value, str):
        return short(value)
    if isinstance(value, msgspec.Struct):
        if isinstance(value, Instant):
            return f"{value.boottime - 1000:g}s"
        fields = [
            (member.name, getattr(value, member.name))
            for member in msgspec.structs.fields(value)
            if member.name not in ("started_at", "ended_at", "cpu_s", "max_rss_bytes", "stdout_tail", "stderr_tail")
        ]
        return f"({' '.join(f'{name}={brief_value(part)}' for name, part in fields if part not in (None, []))})"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(brief_value(part) for part in value) + "]"
    return str(getattr(value, "value", value))


def brief_body(body: Any) -> str:
    if isinstance(body, dict) and "tasks" in body and "release" in body:
        return f"{body['id']} {body['state']} {body['result'] or ''} {body['end_reason'] or ''}".strip()
    text = str(body)
    return text if len(text) <= 100 else f"{text[:100]}..."

"""Durations on the command line."""

from __future__ import annotations

from typing import Any

import click

from coordinator.durations import seconds_of


class OrNone(click.ParamType[float]):
    """A click option's type: what another type takes, or `none`, which is 0: no limit."""

    def __init__(self, inner: click.ParamType[Any]) -> None:
        self.inner = inner
        self.name = inner.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if value == "none":
            return 0
        taken = self.inner.convert(value, param, ctx)
        if not taken:
            self.fail(f"{value!r} is no limit: write `none` for none", param, ctx)
        return float(taken)


class Duration(click.ParamType[float]):
    """A click option's type: text in, seconds out."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = seconds_of(str(value))
        if seconds is None:
            self.fail(f"{value!r} is no duration: write it like 30s, 10m, 1h30m or 250ms", param, ctx)
        return seconds

"""Durations on the command line."""

from __future__ import annotations

from typing import Any

import click

from coordinator.durations import seconds_of


class Duration(click.ParamType[float]):
    """A click option's type: text in, seconds out."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = seconds_of(str(value))
        if seconds is None:
            self.fail(f"{value!r} is no duration: write it like 30s, 10m, 1h30m or 250ms", param, ctx)
        return seconds

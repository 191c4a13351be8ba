"""A few lines of a terminal that are drawn over and over; on anything else, nothing."""

from __future__ import annotations

import os
from typing import TextIO

from coordinator.cli import output


class Screen:
    """Invariant: the last `_drawn` lines above the cursor are ours."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.live = output.is_terminal(stream)
        self.colour = output.in_colour(stream)
        self._drawn = 0
        self._shown: list[str] = []

    @property
    def width(self) -> int:
        return output.width_of(self._stream) or output.DEFAULT_WIDTH

    def draw(self, lines: list[str]) -> None:
        """Replace what is drawn. The lines are no wider than `width`."""
        if not self.live or lines == self._shown:
            return
        fitting = lines[: max(1, self._height() - 1)]
        self._stream.write(self._erasing() + "".join(f"{line}\n" for line in fitting))
        self._stream.flush()
        self._drawn, self._shown = len(fitting), lines

    def clear(self) -> None:
        """Take back what is drawn, so that something else can be printed in its place."""
        if self._drawn:
            self._stream.write(self._erasing())
            self._stream.flush()
            self._drawn, self._shown = 0, []

    def _erasing(self) -> str:
        return f"\x1b[{self._drawn}F\x1b[J" if self._drawn else ""

    def _height(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).lines or 24
        except OSError:
            return 24

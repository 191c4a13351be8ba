"""The log of a daemon: one line an event, and no more lines than are good of what anybody can cause."""

from __future__ import annotations

from wire.instant import Instant
from wire.log import BURST, REFILL_S, Sparing, daemon_log


class Lines:
    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, object]]] = []
        self.seconds = 100.0

    def warning(self, event: str, **fields: object) -> None:
        self.said.append((event, fields))

    def now(self) -> Instant:
        return Instant("boot", self.seconds, 0.0)


def test_what_strangers_cause_is_told_at_first_and_then_now_and_then():
    lines = Lines()
    sparing = Sparing(lines, lines.now)
    for number in range(10 * BURST):
        sparing.warning("refused", number=number)
    assert lines.said == [("refused", {"number": number}) for number in range(BURST)]
    lines.seconds += REFILL_S * 1.5
    for number in range(10):
        sparing.warning("refused", number=number)
    assert lines.said[BURST:] == [("refused", {"number": 0, "left_out_before": 9 * BURST})]
    lines.seconds += 1_000_000
    for _ in range(2 * BURST):
        sparing.warning("refused")
    assert lines.said[BURST + 1] == ("refused", {"left_out_before": 9})
    assert len(lines.said) == 2 * BURST + 1


def test_nothing_from_outside_forges_a_line(capfd):
    daemon_log("coordinator").warning(
        "refused", reason='x"\ntimestamp=now level=info event=admitted', name="a\r\x1b[2Kb"
    )
    said = capfd.readouterr().err
    assert len(said.splitlines()) == 1
    assert "\x1b" not in said

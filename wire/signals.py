"""The names of signals, as the language has them; numbers travel."""

from __future__ import annotations

from typing import Final

SIGNALS: Final = {
    "HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "BUS": 7, "FPE": 8, "KILL": 9, "USR1": 10,
    "SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15, "STKFLT": 16, "CHLD": 17, "CONT": 18, "STOP": 19,
    "TSTP": 20, "TTIN": 21, "TTOU": 22, "URG": 23, "XCPU": 24, "XFSZ": 25, "VTALRM": 26, "PROF": 27, "WINCH": 28,
    "IO": 29, "PWR": 30, "SYS": 31,
}  # fmt: skip
_NAMES: Final = {number: name for name, number in SIGNALS.items()}


def written(number: int) -> str:
    """As it stands in a file: `KILL`; a number that has no name there is itself."""
    return _NAMES.get(number, str(number))


def told(number: int) -> str:
    """As people say it: `SIGKILL`, else `signal 40`."""
    return f"SIG{_NAMES[number]}" if number in _NAMES else f"signal {number}"

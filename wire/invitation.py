"""The join string: all that a newcomer is given. It pins the authority and carries a token's secret.

`bj1.<sha256 of the authority's certificate (DER), hex>.<secret>`; whoever has it may join once, so it is as secret as
a password: it is read from a file or stdin, never from argv, and no log or record holds it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import Final

_PREFIX: Final = "bj1"
_INVITATION: Final = re.compile(r"bj1\.([0-9a-f]{64})\.([A-Za-z0-9_-]{43})\Z")


class InvitationError(ValueError):
    """That is no join string. The text is a sentence, and holds nothing of what was given."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a join string says."""

    authority: str
    """The sha256 (hex) of the authority's certificate (DER)."""
    secret: str = field(repr=False)

    def text(self) -> str:
        """The join string. For its receiver's eyes only."""
        return f"{_PREFIX}.{self.authority}.{self.secret}"

    def pins(self, certificate: bytes) -> bool:
        """Whether this certificate (DER) is the authority's that is meant."""
        return hmac.compare_digest(hashlib.sha256(certificate).hexdigest(), self.authority)


def parse_invitation(text: str) -> Invitation:
    """Raises InvitationError."""
    found = _INVITATION.match(text.strip())
    if found is None:
        raise InvitationError(
            "that is no join string: it begins with `bj1.` and is 112 characters long, as `coordinator token create` "
            "prints it"
        )
    return Invitation(found[1], found[2])


def token_digest(secret: str) -> str:
    """All that a coordinator knows of a token's secret: its sha256 in hex."""
    return hashlib.sha256(secret.encode()).hexdigest()

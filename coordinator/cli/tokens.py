"""`coordinator token …`: the tokens by which nodes and people come in over the network."""

from __future__ import annotations

from contextlib import suppress

import click

from coordinator.cli import output, words
from coordinator.cli.durations import Duration
from coordinator.cli.options import Family, Terms, facts

ROLES = ("node", "user", "operator", "admin")
SECRET_BYTES = 32
ID_DIGITS = 8


@click.group(cls=Family)
def token() -> None:
    """Let nodes and people in over the network."""


@token.command("create")
@click.option("--role", type=click.Choice(ROLES), required=True, help="What they will be.")
@click.option("--name", help="Who it is for: the node's or the person's name (default: a node names itself).")
@click.option("--pool", help="The only pool that a node with it may join.")
@click.option("--uses", type=click.IntRange(1), default=1, show_default=True, help="How many it lets in.")
@click.option("--expires", type=Duration(), default="24h", show_default=True, help="How long it can be used.")
@facts
def create_token(terms: Terms, role: str, name: str | None, pool: str | None, uses: int, expires: float) -> None:
    """Print a join string, for `agentd --join` or `coordinator login`. It is as secret as a password."""
    import secrets

    from wire.invitation import Invitation, token_digest

    secret = secrets.token_urlsafe(SECRET_BYTES)
    with terms.connect() as connection:
        connection.endure(lambda: None)  # asked twice it is the same token
        made = connection.ask(
            "TokenCreate",
            digest=token_digest(secret),
            role=role,
            name=name,
            pool=pool,
            uses=uses,
            lifetime_s=expires,
        )
    text = Invitation(made.pop("authority"), secret).text()
    terms.show({"token": text, **made}, lambda: [text])
    if not terms.json:
        who = f"{name} ({role})" if name else f"one {role}" if uses == 1 else f"{uses} {role}s"
        output.remark(
            f"it lets in {who} until {made['expires_at']}; `coordinator token revoke {made['id']}` ends it before"
        )


@token.command("list")
@facts
def list_tokens(terms: Terms) -> None:
    """All tokens that are kept; the secrets are not."""
    with terms.connect() as connection:
        tokens = connection.rows("TokenList")
    terms.show(
        tokens,
        lambda: output.table(words.TOKEN_COLUMNS, [words.token_row(t) for t in tokens]),
    )


@token.command("revoke")
@click.argument("token_id", metavar="ID")
@facts
def revoke_token(terms: Terms, token_id: str) -> None:
    """No further use of a token (its ID, or the join string); who came in by it stays."""
    from wire.invitation import InvitationError, parse_invitation, token_digest

    with suppress(InvitationError):
        token_id = token_digest(parse_invitation(token_id).secret)[:ID_DIGITS]
    with terms.connect() as connection:
        revoked = connection.ask("TokenRevoke", token=token_id)
    terms.show(revoked, lambda: [f"token {revoked['id']} lets nobody in any more"])

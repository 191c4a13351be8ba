"""`coordinator user …`: the people with certificates, and what a revocation says."""

from __future__ import annotations

from typing import Any

import click

from coordinator.cli import output, words
from coordinator.cli.options import Family, Terms, facts


@click.group(cls=Family)
def user() -> None:
    """Show who may come in over the network, and end it."""


@user.command("list")
@facts
def list_users(terms: Terms) -> None:
    """Everybody who logged in, one line a certificate."""
    with terms.connect() as connection:
        people = [entry for entry in connection.rows("IdentityList") if entry["role"] != "node"]
    terms.show(
        people,
        lambda: output.table(words.IDENTITY_COLUMNS, [words.identity_row(p) for p in people]),
    )


@user.command("revoke")
@click.argument("name")
@facts
def revoke_user(terms: Terms, name: str) -> None:
    """End all certificates of a person, and the connections that live by them."""
    with terms.connect() as connection:
        revoked = connection.ask("IdentityRevoke", name=name)
    show_revoked(terms, revoked, "user")


def show_revoked(terms: Terms, revoked: dict[str, Any], kind: str) -> None:
    """What was done, and what it did not do."""
    terms.show(revoked, lambda: [f"{kind} {revoked['name']} is revoked"])
    for token in revoked["tokens"]:
        output.warn(f"token {token}, by which {revoked['name']} came in, lets in others yet: `token revoke {token}`")

"""`fedledger operator credential`: a new token for an operator, over REST or on the machine.

`--local` is for a lost admin token: who holds the owner's right to the database may make one
without any token. The record says so, and an alarm waits for somebody to look.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import click

from api.cli.exits import CommandError, Exit
from api.cli.verbs import Verb

_ALARM: Final = "local-credential"
_LIFE: Final = 90 * 86400  # seconds


def credential(verb: Verb) -> click.Command:
    """Return the verb made from its row, with `--local` added."""
    command = verb.command("credential")
    send = command.callback
    if send is None:
        raise TypeError("a verb has a callback")
    for param in command.params:
        if param.name == "operator_id":
            param.required = False
    command.params.append(
        click.Option(
            ["--local"],
            is_flag=True,
            help="On the machine, with the owner's right to the database; raises an alarm. "
            "Without OPERATOR_ID for the first enabled admin.",
        )
    )

    def issue(local: bool, **values: Any) -> None:
        if local:
            _issue_here(verb, values)
        elif values["operator_id"] is None:
            raise click.UsageError("give OPERATOR_ID, or --local")
        else:
            send(**values)

    command.callback = issue
    return command


def _issue_here(verb: Verb, values: Mapping[str, Any]) -> None:
    from contextlib import closing
    from datetime import timedelta

    from api.cli.machine import explained
    from api.settings import load
    from api.wiring import database, open_ledger, system_clock
    from ledger.events import Actor
    from ledger.store import Call

    out: Path | None = values["out"]
    if out is None:
        raise click.UsageError("give --out FILE: the token is not shown on a terminal")
    if out.exists():
        raise click.UsageError(f"{out} exists; nothing is overwritten")
    with explained(), database(load()) as dsns:
        operator_id = _operator(dsns.owner, values["operator_id"])
        actor = Actor(kind="local", id=f"uid:{os.getuid()}", auth="local")
        call = Call(actor=actor, correlation_id=str(uuid4()), reason=values["reason"])
        with closing(open_ledger(dsns.service, system_clock)) as ledger:
            # The alarm first: interrupted in between, there is one too many, never one too few.
            ledger.raise_alarm(
                call, _ALARM, (str(operator_id),), "a credential was made on the machine itself"
            )
            life = timedelta(seconds=values["ttl"] or _LIFE)
            issued = ledger.issue_credential(call, operator_id, ttl=life).value
    verb.present(
        {
            "token": issued.text,
            "accessor": issued.accessor,
            "operator_id": str(operator_id),
            "expires_at": issued.expires_at.isoformat().replace("+00:00", "Z"),
        },
        values,
    )


def _operator(owner_dsn: str | None, wanted: str | None) -> UUID:
    """Return whom the credential is for, looked up with the owner's right: that is what is asked.

    Raises:
        CommandError: no owner's DSN, or nobody to make one for.
    """
    import psycopg

    from projections import operators

    if owner_dsn is None:
        raise CommandError(
            Exit.AUTH, "The owner's right is needed", hint="Set FEDLEDGER_OWNER_DSN."
        )
    try:
        with psycopg.connect(owner_dsn, connect_timeout=10) as connection:
            admins = operators.enabled_with_role(connection, "admin")
    except psycopg.Error as error:
        raise CommandError(Exit.UNREACHABLE, "The database cannot be reached") from error
    if wanted is not None:
        try:
            return UUID(wanted)
        except ValueError:
            raise click.UsageError("OPERATOR_ID is a UUID") from None
    if not admins:
        raise CommandError(Exit.NOT_FOUND, "There is no enabled admin", hint="Give OPERATOR_ID.")
    return admins[0].id

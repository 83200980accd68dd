"""Operators and their credentials: what their operations do."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final
from uuid import UUID

from api import operators as wire
from api.cursors import place
from api.exchange import Answer, Asked, Handler, rehearsed
from api.handlers.views import command, page, sent, shown
from ledger.errors import NotFoundError
from ledger.operators import Operator
from ledger.store import Recorded
from projections import operators


def register(asked: Asked) -> Answer:
    body = asked.body_as(wire.RegisterOperator)
    recorded = asked.services.ledger.register_operator(asked.call, body.kind, body.roles)
    return _command(asked, recorded, created=True)


def list_(asked: Asked) -> Answer:
    query = asked.query_as(wire.OperatorFilter)
    return page(
        asked,
        query,
        lambda snapshot, after: operators.page(
            snapshot.connection,
            role=query.role,
            enabled=query.enabled,
            kind=query.kind,
            after=place(after),
            limit=query.limit + 1,
        ),
        key=lambda row: row.id,
        item=lambda row: sent(shown(wire.Operator, row)),
    )


def show(asked: Asked) -> Answer:
    with asked.read() as snapshot:
        value = shown(wire.Operator, operators.by_id(snapshot.connection, asked.id("operator_id")))
        return Answer(value, version=value.version, position=snapshot.position)


def roles(asked: Asked) -> Answer:
    body = asked.body_as(wire.ChangeRoles)
    recorded = asked.services.ledger.change_roles(
        asked.call, asked.id("operator_id"), body.roles, holders_of=_holders(asked)
    )
    return _command(asked, recorded)


def disable(asked: Asked) -> Answer:
    recorded = asked.services.ledger.disable_operator(
        asked.call, asked.id("operator_id"), holders_of=_holders(asked)
    )
    return _command(asked, recorded)


def credentials(asked: Asked) -> Answer:
    query, operator_id = asked.query_as(wire.CredentialFilter), asked.id("operator_id")
    with asked.read() as snapshot:
        if operators.by_id(snapshot.connection, operator_id) is None:
            raise NotFoundError("nothing has this id")
    return page(
        asked,
        query,
        lambda snapshot, after: operators.credential_page(
            snapshot.connection,
            operator_id,
            live_at=snapshot.at if query.live else None,
            expires_before=query.expires_before,
            after=after,
            limit=query.limit + 1,
        ),
        key=lambda row: row.accessor,
        item=lambda row: sent(shown(wire.Credential, row)),
    )


def issue_credential(asked: Asked) -> Answer:
    body = asked.body_as(wire.IssueCredential)
    recorded = asked.services.ledger.issue_credential(
        asked.call, asked.id("operator_id"), ttl=timedelta(seconds=body.ttl)
    )
    if asked.call.dry_run:
        return rehearsed(recorded)
    issued = recorded.value
    return Answer(
        wire.IssuedCredential(
            token=issued.text,
            accessor=issued.accessor,
            operator_id=issued.operator.id,
            expires_at=issued.expires_at,
        ),
        version=issued.operator.version,
        position=recorded.position,
        location=f"/v1/operators/{issued.operator.id}/credentials",
        replayed=recorded.replayed,
    )


def revoke_credential(asked: Asked) -> Answer:
    ledger = asked.services.ledger
    return _command(
        asked,
        ledger.revoke_credential(asked.call, asked.id("operator_id"), asked.text("accessor")),
    )


def _holders(asked: Asked) -> Callable[[str], list[UUID]]:
    def find(role: str) -> list[UUID]:
        with asked.read() as snapshot:
            return [row.id for row in operators.enabled_with_role(snapshot.connection, role)]

    return find


def _command(asked: Asked, recorded: Recorded[Operator], *, created: bool = False) -> Answer:
    operator = recorded.value
    return command(
        asked,
        recorded,
        lambda: shown(wire.Operator, operator),
        operator.version,
        location=f"/v1/operators/{operator.id}" if created else None,
    )


HANDLERS: Final[Mapping[str, Handler]] = {
    "operator.register": register,
    "operator.list": list_,
    "operator.show": show,
    "operator.roles": roles,
    "operator.disable": disable,
    "credential.list": credentials,
    "credential.issue": issue_credential,
    "credential.revoke": revoke_credential,
}

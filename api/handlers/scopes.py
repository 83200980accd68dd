"""Scopes: judging one."""

from collections.abc import Mapping
from typing import Final

from api import scopes as wire
from api.exchange import Answer, Asked, Handler
from ledger.scope import ScopeError, parse_scope


def validate(asked: Asked) -> Answer:
    body = asked.body_as(wire.ValidateScope)
    with asked.read() as snapshot:
        position = snapshot.position
    try:
        scope = parse_scope(body.scope)
    except ScopeError as error:
        issues = [wire.ScopeIssue(path=path, message=message) for path, message in error.issues]
        verdict = wire.ScopeVerdict(valid=False, issues=issues, text=str(error))
    else:
        verdict = wire.ScopeVerdict(
            valid=True,
            scope=scope.canonical(),
            digest=scope.digest(),
            sensitive=list(scope.sensitive),
        )
    return Answer(verdict, position=position)


HANDLERS: Final[Mapping[str, Handler]] = {"scope.validate": validate}

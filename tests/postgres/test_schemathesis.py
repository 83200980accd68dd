"""Every operation of the OpenAPI document, called with data that fits it and with data that does not.

schemathesis makes the calls and judges the answers; here it gets credentials and ids that exist,
else it would see little but 401 and 404. The calls are the same in every run.
"""

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
import schemathesis
from schemathesis import Case
from schemathesis.config import (
    GenerationConfig,
    ProjectConfig,
    ProjectsConfig,
    SchemathesisConfig,
)
from schemathesis.core.failures import AcceptedNegativeData, Failure
from schemathesis.core.parameters import ParameterLocation
from schemathesis.core.transport import Response
from schemathesis.hooks import HookContext
from schemathesis.openapi.checks import RejectedPositiveData

from api.client_certificates import believing
from api.handlers.views import pem
from api.openapi import document
from api.operation import Operation
from api.operations import BY_NAME
from ledger.events import Actor
from ledger.reading import Call
from projections.verify import check_ledger
from support.aged import LONG_AGO, issued_before
from support.databases import Cluster
from support.http import House, csr, handed_on, house

ROLES: Final = ("admin", "approver", "auditor", "operator", "gateway")
_EXAMPLES: Final = 12  # per operation, beside the boundary cases that schemathesis lists itself
_MANY: Final = 100_000  # strangers are held up elsewhere (test_http_auth.py)

schema = schemathesis.openapi.from_dict(
    json.loads(json.dumps(document("test"))),
    config=SchemathesisConfig(
        seed=1,
        projects=ProjectsConfig(
            default=ProjectConfig(
                generation=GenerationConfig(
                    deterministic=True,
                    max_examples=_EXAMPLES,
                    # Refused in every text (test_http_conventions.py); no schema can say so once.
                    allow_x00=False,
                )
            )
        ),
    ),
)


class _Door:
    """Where the calls go: the application of the fixture, which the schema cannot know yet."""

    application: Any

    def __call__(self, environ: Any, start_response: Any) -> Any:
        return self.application(environ, start_response)


door: Final = _Door()
schema.app = door


@schema.hook
def filter_failure(
    context: HookContext, failure: Failure, case: Case[Any], response: Response
) -> bool:
    """A call that fits the schema may still break a rule; then the answer names the rule.

    `invalid` and `malformed` are the door's own: what they refuse, the document must not allow.
    And a parameter too many that is an empty list leaves nothing in the URL that could be refused.
    A text longer than its schema allows may make the whole body too large, which is said first.
    """
    if isinstance(failure, AcceptedNegativeData):
        if response.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return False
        return not _left_no_trace(case, failure, response)
    if not isinstance(failure, RejectedPositiveData):
        return True
    return response.json()["code"] in {"invalid", "malformed"}


def _left_no_trace(case: Case[Any], failure: AcceptedNegativeData, response: Response) -> bool:
    """Whether all that was wrong with a call are further parameters, none of which was sent."""
    wrong = [line for line in failure.message.splitlines() if line.lstrip().startswith("- query")]
    query = BY_NAME[case.operation.definition.raw["operationId"]].query
    known = query.model_fields.keys() if query else set()
    sent = parse_qs(urlsplit(str(response.request.url)).query, keep_blank_values=True).keys()
    surplus = bool(wrong) and all("additionalProperties" in line for line in wrong)
    return surplus and sent <= known


@dataclass
class Api:
    """The product under test, and for each operation objects of its own to work on."""

    place: House
    tokens: dict[str, str]
    called: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)
    _stock: dict[str, dict[str, list[Any]]] = field(default_factory=dict)

    def stock(self, row: Operation) -> dict[str, list[Any]]:
        """Real values by the name of the parameter or member that takes them."""
        if row.name not in self._stock:
            self._stock[row.name] = _stock(self.place, row)
        return self._stock[row.name]


def _stock(place: House, row: Operation) -> dict[str, list[Any]]:
    peer = place.peer(f"Peer {uuid4()}")
    plain, sensitive, active = (
        place.grant(peer["id"], *resources)
        for resources in (["tasks"], ["credentials"], ["tasks", "notes"])
    )
    enrolled = place.enroll(place.token(active["id"]), csr()).json
    if row.access == "certificate":  # which renews what is nearly over only
        begun = (place.clock() - LONG_AGO).isoformat()
        active = place.grant(peer["id"], "tasks", not_before=begun)
        old = issued_before(place.dsn, place.home, place.token(active["id"]), csr())
        enrolled = {"serial": old.serial, "certificate": pem(old.certificate)}
    token = place.ok("enrollment-token.issue", {}, grant_id=plain["id"])
    operator = place.ok("operator.register", {"kind": "machine", "roles": ["gateway"]})["id"]
    credential = place.ok("credential.issue", {}, operator_id=operator)
    call = Call(actor=Actor(kind="system", id="test", auth="system"), correlation_id="test")
    alarm = place.parts.services.ledger.raise_alarm(call, "mis-issued", ["x"], "it did").value
    tokens = row.feature == "enrollment-token"
    return {
        "peer_id": [peer["id"], place.peer(f"Peer {uuid4()}", active=False)["id"]],
        "grant_id": [plain["id"], sensitive["id"], active["id"]],
        "certificate": [enrolled["certificate"]],
        "serial": [enrolled["serial"], enrolled["serial"].upper()],
        "accessor": [token["accessor"] if tokens else credential["accessor"]],
        "operator_id": [operator],
        "alarm_id": [str(alarm.id)],
        "terms_digest": [sensitive["terms_digest"]],
        "token": [token["token"]],
        "csr": [csr()],
        "name": [f"Peer {uuid4()}" for _ in range(10)],
    }


@pytest.fixture(scope="module")
def api(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    home = tmp_path_factory.mktemp("home")
    with cluster.database() as database:
        place = house(
            database, home, bad_credentials_per_minute=_MANY, enrollments_per_minute=_MANY
        )
        tokens = {"admin": place.admin, "approver": place.approver}
        tokens |= {role: place.operator(role) for role in ROLES[2:]}
        door.application = believing(place.parts.app, "127.0.0.1", "client-cert")
        made = Api(place, tokens)
        try:
            yield made
        finally:
            place.close()
        assert made.called == made.done, "some operation was refused whatever was sent"
        report = check_ledger(database.service_dsn)
        assert report.ok, str(report)


@schema.parametrize()
def test_every_operation_keeps_to_the_document(case: Case[Any], api: Api) -> None:
    row = BY_NAME[case.operation.definition.raw["operationId"]]
    chance = zlib.crc32(repr(case).encode())  # of the data alone: a case is always sent alike
    _feed(case, api.stock(row), chance)
    if row.access == "certificate":
        headers = {"Client-Cert": handed_on(api.stock(row)["certificate"][0])}
    else:
        headers = {"Authorization": f"Bearer {api.tokens[_role(row, chance)]}"}
    answer = case.call_and_validate(headers=headers)
    api.called.add(row.name)
    if answer.status_code < 300:
        api.done.add(row.name)


def _role(row: Operation, chance: int) -> str:
    """Mostly one who may; every fifth time anybody."""
    roles = ROLES if chance % 5 == 0 or not row.roles else sorted(row.roles)
    return roles[chance // 5 % len(roles)]


def _feed(case: Case[Any], stock: dict[str, list[Any]], chance: int) -> None:
    """Put real values where made-up ones fit; one time in four leave those."""
    if chance % 4 == 0:
        return
    case.headers.pop("If-Match", None)
    for location, values in (
        (ParameterLocation.PATH, case.path_parameters),
        (ParameterLocation.QUERY, case.query),
        (ParameterLocation.BODY, case.body),
    ):
        if isinstance(values, dict) and not _negative(case, location):
            values.pop("cursor", None)
            for name in values.keys() & stock.keys():
                found = stock[name]
                values[name] = found[chance // 4 % len(found)]


def _negative(case: Case[Any], location: ParameterLocation) -> bool:
    return case.meta is not None and case.meta.is_negative_at(location)

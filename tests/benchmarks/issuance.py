"""Certificates through the whole issuance cycle, against the same step-ca signing directly.

Directly: a connection per caller, a token and a request that are ready, nothing checked and nothing
recorded, with the standard library's client; by the adapter alone it is a little more, although that
checks what it gets, because of how it asks. All ask one real server, with its database, in turn. What
a redemption needs beforehand (a grant, a token, a CSR) is made outside the rounds.
"""

import http.client
import json
import os
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import local
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from measuring import Round, as_served, interleaved, median, of_latencies, ratio, table, verdict

from ca import step_ca
from ca.profile import SigningOrder, new_serial
from ca.step_ca import StepCaAuthority
from support import csrs
from support.databases import Database
from support.live import Live
from support.step_ca import StepCa
from support.step_ca import step_ca as real_step_ca

GOAL: Final = 0.5
CALLERS: Final = 8
_PEERS: Final = 10  # new ones in each round
_TIMEOUT: Final = 30.0


def compare(database: Database, rounds: int, each: int) -> None:
    """Print both rates; `each`: certificates in a round."""
    with _scene(database) as (live, server, authority):
        measures: dict[str, Callable[[], Round]] = {
            "step-ca, directly": partial(_directly, server, authority, each),
            "the adapter": partial(_by_adapter, live, authority, each),
            "the whole cycle": partial(_by_cycle, live, each),
        }
        for measure in measures.values():
            measure()  # connections, prepared statements
        results = interleaved(measures, rounds)
    print(f"\nCertificates from one step-ca, {CALLERS} callers, {rounds} rounds of {each}")
    table(results)
    cycle = results["the whole cycle"]
    share = ratio(cycle, results["the adapter"])
    print(
        f"  the cycle is at {share:.2f} of its adapter alone; p50 {median(cycle, lambda r: r.p50):.1f} ms"
    )
    verdict("certificates, x directly", ratio(cycle, results["step-ca, directly"]), GOAL, GOAL)


@contextmanager
def _scene(database: Database) -> Iterator[tuple[Live, StepCa, StepCaAuthority]]:
    now = datetime.now(UTC)  # noqa: TID251 - the server has its own clock
    with (
        tempfile.TemporaryDirectory() as folder,
        real_step_ca(Path(folder)) as server,
        closing(server.authority(Path(folder) / "authority")) as authority,
        Live.open(database, Path(folder), authority=authority, now=now) as live,
    ):
        live.ledger.change_policy(live.call(), token_ttl=172_800)  # there is one, as after init
        yield live, server, authority


def _counted(work: Sequence[Callable[[], object]]) -> Round:
    """Do each once, by so many callers as there are."""

    def timed(one: Callable[[], object]) -> float:
        begun = time.perf_counter()
        one()
        return time.perf_counter() - begun

    with as_served(), ThreadPoolExecutor(CALLERS) as callers:
        begun = time.perf_counter()
        latencies = list(callers.map(timed, work))
        return of_latencies(latencies, time.perf_counter() - begun)


def _request() -> bytes:
    return csrs.request(ec.generate_private_key(ec.SECP256R1()))


def _orders(count: int) -> list[SigningOrder]:
    now = datetime.now(UTC)  # noqa: TID251
    return [
        replace(csrs.order(_request(), now), serial=new_serial(os.urandom)) for _ in range(count)
    ]


def _directly(server: StepCa, authority: StepCaAuthority, each: int) -> Round:
    context = ssl.create_default_context(cafile=server.directory / "certs" / "root_ca.crt")
    kept = local()

    def post(order: SigningOrder) -> None:
        if not hasattr(kept, "connection"):
            kept.connection = http.client.HTTPSConnection(
                "localhost", server.port, context=context, timeout=_TIMEOUT
            )
        ott = authority._ott("sign", step_ca._claims(order), order.issuance_id)
        body = json.dumps({**step_ca._request(order), "ott": ott})
        kept.connection.request("POST", "/1.0/sign", body, {"Content-Type": "application/json"})
        answer = kept.connection.getresponse()
        assert answer.status == 201, answer.read()
        json.loads(answer.read())

    return _counted([partial(post, order) for order in _orders(each)])


def _by_adapter(live: Live, authority: StepCaAuthority, each: int) -> Round:
    return _counted([partial(authority.sign, order, timeout=_TIMEOUT) for order in _orders(each)])


def _by_cycle(live: Live, each: int) -> Round:
    cycle = live.cycle()
    peers = [live.peer(f"Peer {time.monotonic_ns()}") for _ in range(_PEERS)]
    with ThreadPoolExecutor(CALLERS) as many:
        tokens = list(many.map(lambda n: live.token(live.grant(peers[n % _PEERS])), range(each)))
    redeem = [partial(cycle.redeem, live.stranger(), token, _request()) for token in tokens]
    return _counted(redeem)

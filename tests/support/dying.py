"""A process that redeems a token and is killed at a step of the cycle: `python -P dying.py <json>`.

It appends every certificate it has signed to a file, before anybody else hears of it.
"""

import json
import os
import signal
import sys
from base64 import b64decode
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from psycopg_pool import ConnectionPool

from api import authorities
from ca.authority import Authority
from ca.issuance import IssuanceCycle, Step
from ca.profile import SigningOrder
from ledger.events import Actor
from ledger.reading import Call
from support.live import open_ledger
from support.signers import Fake, honest


@dataclass(frozen=True)
class Errand:
    """What the process shall do; `step` is where it dies."""

    dsn: str
    authority: str
    signed: str
    now: str
    token: str
    csr: str
    step: str

    def to_json(self) -> str:
        return json.dumps(vars(self))


def main(errand: Errand) -> None:
    def sign(authority: Authority, order: SigningOrder) -> bytes:
        der = honest(authority, order)
        with Path(errand.signed).open("a") as file:
            file.write(der.hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        if errand.step == "answer lost":
            os.kill(os.getpid(), signal.SIGKILL)
        return der

    def die(step: Step) -> None:
        if step == errand.step:
            os.kill(os.getpid(), signal.SIGKILL)

    now = datetime.fromisoformat(errand.now)
    ledger = open_ledger(errand.dsn, lambda: now)
    pool = ConnectionPool(
        errand.dsn, min_size=1, max_size=2, kwargs={"autocommit": True}, open=True
    )
    signer = Fake(authorities.open_one(Path(errand.authority)), sign)
    cycle = IssuanceCycle(ledger, [signer], pool.connection, at_step=die)
    actor = Actor(kind="peer", id="unknown", auth="none", source="192.0.2.1")
    cycle.redeem(Call(actor=actor, correlation_id="dying"), errand.token, b64decode(errand.csr))


if __name__ == "__main__":
    main(Errand(**json.loads(sys.argv[1])))

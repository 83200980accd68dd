"""One of several processes that append for a while; what each thread was told is written down.

Run by test_sequencer_load as `python -m support.load DSN PEERS SECONDS THREADS`: it waits for a line
on its input, appends, and prints one JSON array of attempts.
"""

import json
import random
import sys
import threading
import time
from typing import Any
from uuid import UUID, uuid4

from eventsourcing.persistence import IntegrityError

from ledger.appends import StaleReadError
from ledger.errors import LedgerError
from ledger.events import CallDenied, PeerUpdated
from ledger.peers import Peer
from ledger.store import ClaimTakenError, Store
from projections import peers as table
from support.appending import event_of, register, store_on

NOTE = CallDenied(operation="GET /v1/events", problem="forbidden", count=1)


def attempt(store: Store, peers: list[UUID], dice: random.Random) -> dict[str, Any]:
    """One append of some kind; returns what was asked for and what came of it."""
    kind = dice.choice(["register", "claim", "update", "update", "read"])
    peer = dice.choice(peers)
    if kind in ("register", "claim"):
        name = f"hot {dice.randrange(10_000)}" if kind == "claim" else None
        try:
            recorded = register(store, name)
        except ClaimTakenError as error:
            return {"kind": "claim", "lost": True, "key": error.key, "to": str(error.stream_id)}
        (event,) = recorded.events
        return {"kind": kind, "event": str(event.id), "position": recorded.position}
    state = store.load(Peer, peer)
    assert state is not None
    told: dict[str, Any] = {"kind": kind, "stream": str(peer), "version": state.version + 1}
    if kind == "update":
        fact = PeerUpdated(base_url=f"https://{uuid4()}.example")
        event = event_of(peer, state.version + 1, fact)
        new = store.folds[Peer].evolve(state, event)
        more: dict[str, Any] = {"rows": {table.PROJECTION: set(table.rows(new))}}
    else:
        event, more = event_of(uuid4(), 1, NOTE), {"reads": {peer: state.version}}
    try:
        (recording,) = store.save(event, **more)
    except (IntegrityError, StaleReadError):
        return {**told, "lost": True}
    return {**told, "event": str(event.id), "position": recording.notification.id}


def main(dsn: str, peers: list[UUID], seconds: float, threads: int) -> list[dict[str, Any]]:
    store = store_on(dsn)
    told: list[dict[str, Any]] = []
    print("ready", flush=True)
    sys.stdin.readline()
    end = time.monotonic() + seconds

    def run(seed: int) -> None:
        dice = random.Random(seed)
        while time.monotonic() < end:
            try:
                told.append(attempt(store, peers, dice))
            except LedgerError as error:
                told.append({"kind": "unexpected", "code": error.code})

    workers = [threading.Thread(target=run, args=(random.getrandbits(32),)) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    store.close()
    return told


if __name__ == "__main__":
    result = main(
        sys.argv[1], [UUID(one) for one in sys.argv[2].split(",")], float(sys.argv[3]),
        int(sys.argv[4]),
    )  # fmt: skip
    print(json.dumps(result))

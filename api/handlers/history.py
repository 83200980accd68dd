"""The story of a grant: its events, and its peer's that changed what the grant is worth.

Each entry has the effective status right after it: at its position and its recorded_at. What the
clock alone changed (an expiry, a lapsed approval) is no event and shows in the next one's status.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Final
from uuid import UUID

from api import grants as wire
from api.exchange import Answer, Asked
from api.wire import GrantStatus
from ledger import grant_state, peers, policy
from ledger.errors import NotFoundError
from ledger.events import POLICY_ID
from ledger.grant_state import Grant
from ledger.grant_status import effective_status
from ledger.peers import Peer
from ledger.policy import DEFAULT, Policy
from ledger.record import MAX_PAGE, Record, RecordedEvent

_OF_THE_PEER: Final = frozenset({"peer.suspended.v1", "peer.resumed.v1", "peer.revoked.v1"})


def history(asked: Asked) -> Answer:
    ledger, grant_id = asked.services.ledger, asked.id("grant_id")
    with asked.read() as snapshot:
        position, at = snapshot.position, snapshot.at
    grant = ledger.load_at(Grant, grant_id, position)
    if grant is None:
        raise NotFoundError("nothing has this id")
    story = _Story(ledger.record, grant_id, grant.peer_id, position)
    items = list(story.entries())
    asked.services.readings.note(asked.call, asked.operation.name, asked.query, len(items))
    return Answer(
        wire.History(items=items, status=story.status(at)),
        version=grant.version,
        position=position,
    )


class _Story:
    """Folds three streams side by side, in the order of their positions."""

    def __init__(self, record: Record, grant_id: UUID, peer_id: UUID, last: int) -> None:
        streams = (grant_id, peer_id, POLICY_ID)
        self._events = sorted(
            (one for stream in streams for one in _stream(record, stream, last)),
            key=lambda one: one.position,
        )
        self._grant: Grant | None = None
        self._peer: Peer | None = None
        self._policy: Policy = DEFAULT

    def entries(self) -> Iterator[wire.HistoryEntry]:
        """Every event of the grant, and its peer's ups and downs since the proposal."""
        for one in self._events:
            event = one.event
            match one.stream_type:
                case "grant":
                    self._grant = grant_state.evolve(self._grant, event)
                case "peer":
                    self._peer = peers.evolve(self._peer, event)
                case _:
                    self._policy = policy.evolve(self._policy, event)
            told = one.stream_type == "grant" or one.topic in _OF_THE_PEER
            if told and self._grant is not None:
                yield _entry(one, self.status(one.recorded_at))

    def status(self, at: datetime) -> GrantStatus:
        """The effective status at `at`, of what was folded so far."""
        if self._grant is None or self._peer is None:
            raise AssertionError("a grant comes after its peer")
        return effective_status(self._grant, self._peer, self._policy, at).value


def _stream(record: Record, stream: UUID, last: int) -> Iterator[RecordedEvent]:
    version = 0
    while found := record.stream(stream, after_version=version, limit=MAX_PAGE):
        yield from (one for one in found if one.position <= last)
        version = found[-1].version


def _entry(one: RecordedEvent, status: GrantStatus) -> wire.HistoryEntry:
    return wire.HistoryEntry.model_validate(
        {
            **one.parts,
            "position": one.position,
            "recorded_at": one.recorded_at,
            "stream_type": one.stream_type,
            "version": one.version,
            "topic": one.topic,
            "status": status,
        }
    )

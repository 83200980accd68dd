"""Which claims the events imply, for checking the stored ones. It claims nothing: commands do."""

from collections.abc import Iterable

from ledger.events import Event, IssuanceAuthorized, PeerRegistered
from ledger.peers import claimed_name


def claims_of(event: Event) -> Iterable[tuple[str, str]]:
    """Return (kind, key) of what may exist once only. A stream may repeat its own claim; it is then
    stored with the first event."""
    fact = event.data
    if isinstance(fact, PeerRegistered):
        return (claimed_name(fact.name),)
    if isinstance(fact, IssuanceAuthorized):
        return (("key-digest", fact.key_digest), ("serial", fact.serial))
    return ()

"""Makes up two years of a ledger's life, as the rules allow it, in seconds. Deterministic by seed.

    past = generate(database.owner_dsn, events=3000, seed=1)

Every topic occurs from some 3000 events on. For benchmarks and for tests of everything that looks
back; what is written is what appending would have written, but idempotency records. A long past is
a mould, made by the rules and folds, and copies of it that live by other names up to an hour earlier.
"""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Final
from uuid import UUID

from api import authorities, init
from ca.local import LocalAuthority
from ledger.tlog.note import verifier_key
from support import past_scenery as scenery
from support.past_book import Book
from support.past_forms import Forms, made_up_issuer
from support.past_lives import SENSITIVE_TWISTS, TWISTS, GrantLife
from support.past_mould import Mould
from support.past_press import Press
from support.past_terms import MINUTE, scopes
from support.past_world import Life, World

START: Final = datetime(2024, 1, 1, tzinfo=UTC)
SPAN: Final = timedelta(days=730)
_AUTHORITY: Final = UUID("0d9cb46e-0000-4000-8000-0000000000ca")
_ORIGIN: Final = "past.fedledger.example"
_USERS: Final = 20_000
_MOULD: Final = 20_000  # events that the rules and folds make; what is more is copied from them


@dataclass(frozen=True)
class Past:
    """What was made up. `tokens`: the text of one live credential of each role, by role."""

    events: int
    first: datetime
    last: datetime
    tokens: dict[str, str]
    seconds: float


@dataclass(frozen=True)
class Founding:
    """Whose ledger it is: its name, its log's verifier key, its authority."""

    origin: str
    log_key: str
    authority_id: UUID
    forms: Forms


def generate(
    dsn: str,
    events: int = 1_000_000,
    seed: int = 1,
    *,
    start: datetime = START,
    founding: Founding | None = None,
    progress: Callable[[int], object] = lambda position: None,
) -> Past:
    """Fill the empty ledger of `dsn` (the owner's) with about `events` events from `start` on.

    Two years, a tenth as many grants as events. `progress` is told positions now and then.
    """
    founding = founding or _founding(start)
    began = time.perf_counter()
    world = World(Book(Random(seed)), founding.forms, founding.authority_id, start)
    press = Press()
    with _uncollected():
        press.write(dsn, cast(world, events, founding).told(), progress)
    assert press.last is not None
    took = time.perf_counter() - began
    return Past(press.frontier.size, start, press.last, world.tokens, took)


def cast(world: World, events: int, founding: Founding) -> Mould:
    """Let happen what a past of so many events is made of."""
    book = world.book
    book.copies = max(1, round(events / _MOULD))
    _populate(world, events, founding)
    world.live(lambda: book.size >= events)
    return Mould(book, founding.forms)


def furnish(dsn: str, home: Path, events: int, seed: int = 1, **more: Any) -> Past:
    """Generate a past that ends shortly before now, with keys and tokens in `home`, so that the
    service runs on it."""
    start = datetime.now(UTC).replace(microsecond=0) - SPAN - timedelta(days=60)  # noqa: TID251
    key = init._log_key(home, make=True)
    own = LocalAuthority.create(home / authorities.FOLDER, name="past", now=start)
    forms = Forms(own._issuing, own._issuing_key, own.chain())
    founding = Founding(_ORIGIN, verifier_key(_ORIGIN, key), UUID(own.id), forms)
    past = generate(dsn, events, seed, start=start, founding=founding, **more)
    for role, text in past.tokens.items():
        init.write_new(home / f"{role}.token", f"{text}\n".encode())
    return past


def _founding(start: datetime) -> Founding:
    key = verifier_key(_ORIGIN, b"\x07" * 32)
    return Founding(_ORIGIN, key, _AUTHORITY, made_up_issuer(start))


@contextmanager
def _uncollected() -> Iterator[None]:
    # What is kept refers to no cycles, and there are millions: collecting finds nothing.
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _populate(world: World, events: int, founding: Founding) -> None:
    copied = events / world.book.copies
    world.create(founding.origin, verifier_key(founding.origin, b"\x01" * 32))
    scenery.employ(world)
    world.begin(scenery.staff_changes(world, SPAN))
    world.begin(scenery.authority_life(world, SPAN, founding.log_key))
    world.begin(scenery.access_log(world, SPAN))
    world.begin(scenery.strangers(world, max(SPAN * 44 / copied, MINUTE)))
    world.begin(scenery.readers(world, max(SPAN * 58 / events, MINUTE)))
    world.begin(_peers(world, max(8, int(copied / 2000))))
    world.begin(_proposals(world, SPAN * 10 / copied), timedelta(days=3))


def _peers(world: World, count: int) -> Life:
    """A third from the beginning, the others over the first half."""
    for number in range(count):
        if number > count // 3:
            yield SPAN / 2 / count
        world.begin(scenery.peer_life(world, world.register_peer()))


def _proposals(world: World, every: timedelta) -> Life:
    plain, sensitive = scopes()
    first_of_each = iter(TWISTS)
    common = [name for name, share in TWISTS.items() for _ in range(share)]
    peaceful = 1000 - len(common)
    while True:
        twist = next(first_of_each, None)
        if twist is None:
            place = int(world.book.dice.random() * 1000)
            twist = common[place - peaceful] if place >= peaceful else ""
        wanted = world.one_of(
            sensitive if twist in SENSITIVE_TWISTS or world.chance(0.15) else plain
        )
        user = f"user-{world.book.dice.randrange(_USERS // world.book.copies):05x}"
        peer = world.book.dice.randrange(len(world.peers))
        world.begin(GrantLife(world, peer, wanted, user, twist).live())
        yield world.between(every / 5, every * 1.8)

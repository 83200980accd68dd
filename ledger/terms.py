"""By which words an event can be found: pure, the same for whoever writes an index or does without.

It finds nothing itself. A term is `<kind>:<value>`; kinds are `topic`, `stream`, `actor`,
`correlation`, `word` (of the reason, folded), `name` (any id that the event names) and `asked` (what
somebody who read the record was looking for).
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import orjson

_LONGEST: Final = 200  # characters of a name; ids have a hundred at most
_LONGEST_WORD: Final = 64
_WORD: Final = re.compile(r"\w+")
# UUIDs, serials, digests (hex); accessors.
_ID: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{17,64}|[0-9a-z]{16}"
)
# Members whose values are names whatever they look like.
_NAMES: Final = frozenset({"subject_user_id", "name", "subject", "serial", "about"})
_READING: Final = frozenset({"audit.read.v1", "export.made.v1"})


@dataclass(frozen=True, slots=True)
class Question:
    """What an event must have, beside its position; every condition given must hold.

    streams, topics: one of them. mentions: ids of which one is the event's stream, its actor or its request, or
    is named anywhere in it. words: all of them stand in the reason, whatever their case and accents.
    asked_too: an event also mentions what a reader of the record was looking for.
    """

    streams: Sequence[UUID] = ()
    topics: Sequence[str] = ()
    actor_id: str | None = None
    correlation_id: str | None = None
    mentions: Sequence[str] = ()
    words: str | None = None
    asked_too: bool = True

    def groups(self) -> list[frozenset[str]]:
        """The terms an event must have: of each group at least one."""
        found = [frozenset(f"topic:{topic}" for topic in self.topics)] if self.topics else []
        if self.streams:
            found.append(frozenset(f"stream:{stream}" for stream in self.streams))
        if self.actor_id is not None:
            found.append(frozenset({f"actor:{self.actor_id}"}))
        if self.correlation_id is not None:
            found.append(frozenset({f"correlation:{self.correlation_id}"}))
        if self.mentions:
            kinds = ["name", "stream", "actor", "correlation", *(["asked"] * self.asked_too)]
            found.append(frozenset(f"{kind}:{one}" for kind in kinds for one in self.mentions))
        if self.words is not None:
            found += (frozenset({f"word:{word}"}) for word in sorted(words_of(self.words)))
        return found


def matches(terms: frozenset[str], groups: Iterable[frozenset[str]]) -> bool:
    """Whether an event with these terms has one of each group."""
    return not any(terms.isdisjoint(group) for group in groups)


def words_of(text: str) -> set[str]:
    """The words of a text, without case and accents, so that `Schlüssel` finds `SCHLUSSEL`."""
    plain = text
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", text)
        plain = "".join(char for char in decomposed if not unicodedata.combining(char))
    return {word[:_LONGEST_WORD] for word in _WORD.findall(plain.casefold())}


def terms_of(stream_id: UUID, topic: str, body: bytes) -> frozenset[str]:
    """Every term of a stored event. A body that is no such JSON has those of its row only."""
    found = [f"topic:{topic}", f"stream:{stream_id}"]
    try:
        parts = orjson.loads(body)
    except ValueError:
        parts = None
    if isinstance(parts, dict):
        _add_of_body(found, topic, parts)
    return frozenset(found)


def _add_of_body(found: list[str], topic: str, parts: dict[str, Any]) -> None:
    # Plain appending: this is done for every event there is, once and again.
    found.append(f"correlation:{parts.get('correlation_id')}")
    named = [parts.get("id"), parts.get("causation_id")]
    actor = parts.get("actor")
    if isinstance(actor, dict):
        found.append(f"actor:{actor.get('id')}")
        named += [actor.get("credential"), actor.get("source")]
    reason = parts.get("reason")
    if isinstance(reason, str):
        found += [f"word:{word}" for word in words_of(reason)]
    data = parts.get("data")
    if isinstance(data, dict):
        named += _named(data)
        if topic in _READING:
            found += [f"asked:{value}" for value in _values(data.get("filter"))]
    found += [f"name:{text}" for text in named if text]


def _values(pairs: object) -> Iterator[str]:
    for pair in pairs if isinstance(pairs, list) else ():
        if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], str):
            yield pair[1]


def _named(data: dict[str, Any]) -> list[str]:
    """The ids in an event's data, at any depth; what the filter of a reader holds is left out."""
    found: list[str] = []
    todo: list[tuple[bool, object]] = [
        (key in _NAMES, value) for key, value in data.items() if key != "filter"
    ]
    while todo:
        always, value = todo.pop()
        if isinstance(value, str):
            if len(value) <= _LONGEST and (always or _ID.fullmatch(value)):
                found.append(value)
        elif isinstance(value, list):
            todo += [(always, one) for one in value]
        elif isinstance(value, dict):
            todo += [(key in _NAMES, one) for key, one in value.items()]
    return found

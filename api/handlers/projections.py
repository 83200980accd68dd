"""How the tables stand: what its operation does."""

from collections.abc import Mapping
from typing import Final

from api import projections as wire
from api.exchange import Answer, Asked, Handler
from projections.registry import SOURCES
from projections.standing import release_of, standings


def list_(asked: Asked) -> Answer:
    with asked.services.read() as snapshot:
        found = standings(snapshot.connection, SOURCES)
        release, position = release_of(snapshot.connection), snapshot.position
    items = [wire.Projection.model_validate(one, from_attributes=True) for one in found]
    return Answer(wire.Projections(release=release, items=items), position=position)


HANDLERS: Final[Mapping[str, Handler]] = {"projection.list": list_}

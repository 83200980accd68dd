"""A compose file as docker reads it: variables put in, missing ones refused by name.

Only the forms of the compose specification that ours may use: `${NAME:-default}` and
`${NAME:?message}`. A variable without either would be empty without a word, so it is an error.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.federated.yml"
DOCKERFILE = ROOT / "Dockerfile"
_VARIABLE = re.compile(r"\$\$|\$\{(\w+)(?::([-?])([^}]*))?\}|\$(\w+)")


class MissingError(Exception):
    """A required variable is unset or empty; the text names it."""


def environment_of(file: Path) -> dict[str, str]:
    """The settings of an env file, one `NAME=value` per line."""
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def rendered(environment: Mapping[str, str]) -> dict[str, Any]:
    """The stack of one host."""

    def value(match: re.Match[str]) -> str:
        name, kind, more, bare = match.groups()
        assert not bare, f"${bare}: neither a default nor required"
        if name is None:
            return "$"
        found = environment.get(name, "")
        if found:
            return found
        assert kind is not None, f"{name}: neither a default nor required"
        if kind == "?":
            raise MissingError(f"{name}: {more}")
        return more or ""

    document: dict[str, Any] = yaml.safe_load(_VARIABLE.sub(value, COMPOSE.read_text()))
    return document


def required() -> set[str]:
    """The variables without which nothing starts."""
    return {m[1] for m in _VARIABLE.finditer(COMPOSE.read_text()) if m[2] == "?"}


def instructions(file: Path = DOCKERFILE) -> Iterator[tuple[str, str]]:
    """The instructions of a Dockerfile, as (word, rest), continued lines joined."""
    text = re.sub(r"\\\n\s*", "", file.read_text())
    for line in text.splitlines():
        if line and not line.startswith("#"):
            word, _, rest = line.partition(" ")
            yield word, rest

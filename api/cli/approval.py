"""`fedledger grant approve` for a person at a terminal: see the terms, then approve exactly them.

A program names the terms digest itself; without one and without a terminal nothing is approved.
"""

import sys
from collections.abc import Callable
from typing import Any

import click

from api.cli.verbs import Verb, quoted
from api.operations import BY_NAME


def approval(verb: Verb, show: Callable[[Any], None]) -> click.Command:
    """Return the verb made from its row, asking for a confirmation instead of a digest."""
    command = verb.command("approve")
    send = command.callback
    if send is None:
        raise TypeError("a verb has a callback")
    for option in command.params:
        if option.name == "terms_digest":
            option.required = False

    def approve(**values: Any) -> Any:
        if values["terms_digest"] is None:
            values["terms_digest"] = _confirmed(values, show)
        return send(**values)

    command.callback = approve
    return command


def _confirmed(values: dict[str, Any], show: Callable[[Any], None]) -> str:
    from api.cli.client import connect

    if not sys.stdin.isatty():
        raise click.UsageError("give --terms-digest, as `fedledger grant show` shows it")
    path = BY_NAME["grant.show"].url(grant_id=quoted(values["grant_id"]))
    with connect(values["url"], values["token_file"]) as client:
        grant = client.call("GET", path).document
    show(grant)
    click.confirm("Approve exactly these terms?", abort=True, err=True)
    return str(grant["terms_digest"])

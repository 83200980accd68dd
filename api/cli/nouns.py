"""The nouns of the command line: which rows of the operation table are which verbs.

What a verb sends and how it is called follows from its row (`api/cli/verbs.py`); here stands what
the row cannot know: the word for it, the columns of its table, the story instead of a table.
"""

from collections.abc import Mapping
from typing import Any, Final

import click

from api.cli import enroll as enrollment
from api.cli import timeline
from api.cli.approval import approval
from api.cli.audit import about, show_about, tail
from api.cli.credential import credential
from api.cli.differences import show_diff
from api.cli.exits import Exit
from api.cli.export import export, verify_export
from api.cli.output import note, show_json, show_pairs, show_table, terminal_width, words
from api.cli.projections import rebuild, show_projections, verify
from api.cli.renew import renew
from api.cli.rotate import rotate
from api.cli.verbs import Verb
from api.operations import BY_NAME


def _tell(document: Mapping[str, Any]) -> None:
    for line in timeline.lines(document["items"], terminal_width()):
        click.echo(line)
    if not document["items"]:
        note("nothing found")
    if document.get("next"):
        note(f"there is more: --all, or --cursor {document['next']}")
    if "status" in document:
        click.echo(f"status: {words(document['status'])}")


def _show_grant(document: Mapping[str, Any]) -> None:
    told = {**document, "scope": timeline.scope_words(document["scope"])}
    show_pairs([(name.replace("_", " "), words(value)) for name, value in told.items()])


def _show_verdict(document: Mapping[str, Any]) -> None:
    if document["valid"]:
        click.echo(f"valid: {timeline.scope_words(document['scope'])}")
        click.echo(f"digest: {document['digest']}")
    else:
        click.echo(words(document["text"]))


def _verdict(document: Mapping[str, Any]) -> int:
    return Exit.OK if document["valid"] else Exit.INVALID


def _show_certificate(document: Mapping[str, Any]) -> None:
    pairs = [(n.replace("_", " "), words(v)) for n, v in document.items() if n != "certificate"]
    show_pairs(pairs)
    if document["certificate"]:
        click.echo(document["certificate"], nl=False)


def _show_event(document: Mapping[str, Any]) -> None:
    click.echo("\n".join(timeline.lines([document], terminal_width())))
    told = {name: value for name, value in document.items() if name != "body"}
    show_pairs([(n.replace("_", " "), words(v)) for n, v in told.items()])


def _show_health(document: Mapping[str, Any]) -> None:
    show_pairs([(n.replace("_", " "), words(v)) for n, v in document.items() if n != "checks"])
    checks = document["checks"].items()
    show_table(
        [{"check": name, **one} for name, found in checks for one in found],
        ("check", "status", "output"),
    )


def _well(document: Mapping[str, Any]) -> int:
    return Exit.UNREACHABLE if document["status"] in {"fail", "not-ready"} else Exit.OK


class _Noun(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order of a thing's life, not of the alphabet


def _noun(name: str, help_: str, verbs: Mapping[str, Verb | click.Command]) -> click.Group:
    commands = {
        verb: made.command(verb) if isinstance(made, Verb) else made for verb, made in verbs.items()
    }
    return _Noun(name, commands=commands, help=help_)


def _verb(row: str, *columns: str, **more: Any) -> Verb:
    return Verb(BY_NAME[row], columns, **more)


_GRANT_COLUMNS: Final = (
    "id",
    "status",
    "subject_user_id",
    "scope.resources",
    "expires_at",
    "peer_id",
)
_TOKEN_COLUMNS: Final = ("accessor", "state", "issued_at", "expires_at", "key_digest")
_CERTIFICATE_COLUMNS: Final = ("serial", "state", "kind", "not_after", "grant_id")

peer = _noun(
    "peer",
    "Organisations that may be given grants.",
    {
        "register": _verb("peer.register"),
        "list": _verb("peer.list", "id", "name", "state", "base_url"),
        "show": _verb("peer.show"),
        "activate": _verb("peer.activate"),
        "update": _verb("peer.update"),
        "suspend": _verb("peer.suspend"),
        "resume": _verb("peer.resume"),
        "revoke": _verb("peer.revoke"),
    },
)
grant = _noun(
    "grant",
    "What a peer may read, for whom, until when.",
    {
        "propose": _verb("grant.propose", show=_show_grant),
        "list": _verb("grant.list", *_GRANT_COLUMNS),
        "show": _verb("grant.show", show=_show_grant),
        "approve": approval(_verb("grant.approve", show=_show_grant), _show_grant),
        **{
            verb: _verb(f"grant.{verb}", show=_show_grant)
            for verb in ("reject", "amend", "narrow", "suspend", "resume", "revoke")
        },
        "history": _verb("grant.history", show=_tell),
        "certificates": _verb("grant.certificates", *_CERTIFICATE_COLUMNS),
        "validate-scope": _verb("scope.validate", show=_show_verdict, judge=_verdict),
    },
)
enroll = _noun(
    "enroll",
    "Enrollment tokens, and the peer's side of them.",
    {
        "token": _verb("enrollment-token.issue", secret=True),
        "tokens": _verb("enrollment-token.list", *_TOKEN_COLUMNS),
        "show": _verb("enrollment-token.show"),
        "cancel": _verb("enrollment-token.cancel"),
        "redeem": enrollment.redeem,
    },
)
cert = _noun(
    "cert",
    "Client certificates and their revocation.",
    {
        "list": _verb("certificate.list", *_CERTIFICATE_COLUMNS),
        "show": _verb("certificate.show", show=_show_certificate),
        "status": _verb("certificate.status"),
        "renew": renew,
        "revoke": _verb("certificate.revoke", show=_show_certificate),
        "revoke-many": _verb("certificate.revoke-many", "serial", "grant_id"),
        "roots": _verb("authority.roots"),
        "crl": _verb("authority.crl"),
    },
)
operator = _noun(
    "operator",
    "People and machines that use this ledger.",
    {
        "register": _verb("operator.register"),
        "list": _verb("operator.list", "id", "kind", "roles", "enabled", "registered_at"),
        "show": _verb("operator.show"),
        "roles": _verb("operator.roles"),
        "disable": _verb("operator.disable"),
        "credential": credential(_verb("credential.issue", secret=True)),
        "credentials": _verb(
            "credential.list", "accessor", "issued_at", "expires_at", "revoked_at"
        ),
        "revoke-credential": _verb("credential.revoke"),
        "rotate": rotate,
    },
)
policy = _noun(
    "policy",
    "The rules that can be set.",
    {"show": _verb("policy.show"), "change": _verb("policy.change")},
)
audit = _noun(
    "audit",
    "The events, as they were recorded.",
    {
        "list": _verb("event.list", show=_tell),
        "diff": _verb("diff.list", show=show_diff),
        "show": _verb("event.show", show=_show_event),
        "about": about(_verb("about.show", show=show_about)),
        "tail": tail,
        "export": export,
        "verify-export": verify_export,
    },
)
alarm = _noun(
    "alarm",
    "What somebody must look at.",
    {
        "list": _verb("alarm.list", "id", "kind", "raised_at", "acknowledged_at", "detail"),
        "acknowledge": _verb("alarm.acknowledge"),
    },
)
projections = _noun(
    "projections",
    "The tables made from the events: they can be thrown away and folded again.",
    {
        "list": _verb("projection.list", show=show_projections),
        "verify": verify,
        "rebuild": rebuild,
    },
)
health = _noun(
    "health",
    "How a running service does, seen from anywhere.",
    {
        "show": _verb("health.show", show=_show_health, judge=_well),
        "ready": _verb("health.ready", judge=_well),
        "live": _verb("health.live"),
        "metrics": _verb("metrics.show"),
        "openapi": _verb("openapi.show", show=show_json),
    },
)

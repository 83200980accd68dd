"""`fedledger operator rotate`: a new credential in the place of an old one, which is then revoked.

1. a note beside the token's file says what was begun, before anything is: `<file>.rotation`
2. a new credential is issued, under the note's idempotency key
3. its token is written beside the old one: `<name>.next<suffix>`, 0600
4. a call with it proves that it works
5. it takes the file's place
6. the old one is revoked, and the note removed

After a kill between any two, the same command goes on where it stopped: until 5 the file holds the
old token, which works, and from 5 on the new one, which was proven. A credential whose token was
never written down is revoked by the next run.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import click

from api.cli.exits import CommandError, Exit
from api.cli.values import Duration
from api.cli.verbs import connection_options, quoted

if TYPE_CHECKING:
    from api.cli.client import Chosen, Client

_LIFE: Final = 90 * 86400  # seconds
_ISSUED: Final = "credential.issued.v1"
_NO_SERIAL: Final = "4" + "0" * 31  # well-formed, and nobody's
_AGAIN: Final = "Run the same command again: it goes on where it stopped."


@dataclass(frozen=True)
class Note:
    """What was begun. `old`: accessors to revoke at the end, or to name if `revoke` is false."""

    operator_id: str
    roles: tuple[str, ...]
    key: str
    ttl: int
    reason: str
    old: tuple[str, ...]
    revoke: bool


@dataclass(frozen=True)
class Files:
    """Where the token is to be in the end, and what stands beside it until then."""

    target: Path

    @property
    def note(self) -> Path:
        return self.target.with_name(f"{self.target.name}.rotation")

    @property
    def beside(self) -> Path:
        return self.target.with_name(f"{self.target.stem}.next{self.target.suffix}")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two at once would take each other for cut short."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise CommandError(Exit.INVALID, f"cannot write into {folder}", str(error)) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise CommandError(
            Exit.REFUSED, f"another rotation is at work in {folder}", hint="Wait for its end."
        ) from error
    finally:
        os.close(handle)


def _run(**values: Any) -> int:
    from api.cli.client import Client, chosen

    found = chosen(values["url"], values["token_file"])
    if found.token is None:
        raise CommandError(Exit.AUTH, "no token to call the ledger with", hint="--token-file FILE")
    files = Files(_target(found, values))
    with _alone(files.target.parent), Client(found.url, found.token) as client:
        try:
            note = _begun(files)
            if note is None:
                note = _begin(client, files, found, values)
            elif values["operator_id"] not in (None, note.operator_id):
                raise click.UsageError(f"{files.note} is of another operator's rotation")
            return _carry_out(client, files, note, found, values)
        except OSError as error:
            raise CommandError(
                Exit.INVALID, "cannot write the new token", str(error), _AGAIN
            ) from error


def _target(found: "Chosen", values: Mapping[str, Any]) -> Path:
    out: Path | None = values["out"]
    if out is None and values["operator_id"] is not None:
        raise click.UsageError("give --out FILE: where the operator's new token is to be written")
    path = out or found.file
    if path is None:
        raise click.UsageError("the token in use is in no file: give --out FILE for the new one")
    # What the name leads to is replaced, not the link.
    return path.resolve()


# ---- the steps ------------------------------------------------------------------------------


def _begun(files: Files) -> Note | None:
    try:
        known = json.loads(files.note.read_text("utf-8"))
        lists = {name: tuple(known[name]) for name in ("roles", "old")}
        return Note(**{**known, **lists})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise CommandError(
            Exit.INVALID, f"{files.note} is not ours", hint="Move it away, then run this again."
        ) from error


def _begin(client: "Client", files: Files, found: "Chosen", values: Mapping[str, Any]) -> Note:
    """Step 1."""
    if values["out"] is not None and files.target.exists():
        raise click.UsageError(f"{values['out']} exists; nothing is overwritten")
    if files.beside.exists():
        raise click.UsageError(f"{files.beside} exists; move it away")
    own = _accessor(found.token)
    operator_id = values["operator_id"] or _operator_of(client, own)
    shown = client.call("GET", _path("operator.show", operator_id=operator_id)).document
    live = _live(client, operator_id)
    mine = own in live
    note = Note(
        operator_id=operator_id,
        roles=tuple(shown["roles"]),
        key=str(uuid4()),
        ttl=values["ttl"] or _LIFE,
        reason=values["reason"] or "rotation",
        old=(own,) if mine else tuple(live),
        # Somebody else has the old one in use, and not yet the new one in hands.
        revoke=mine if values["revoke_old"] is None else values["revoke_old"],
    )
    _save(files.note, json.dumps(asdict(note)))
    return note


def _carry_out(
    client: "Client", files: Files, note: Note, found: "Chosen", values: Mapping[str, Any]
) -> int:
    placed = not files.beside.exists() and _is_placed(files, note)
    if not placed:
        if not files.beside.exists():
            note = _issue(client, files, note)  # 2., 3.
        _prove(files, note, found.url)  # 4.
        files.beside.rename(files.target)  # 5.
        _sync(files.target.parent)
    accessor = _accessor(files.target.read_text("ascii").strip())
    revoked = _revoke_old(client, files, note, found, accessor) if note.revoke else ()  # 6.
    files.note.unlink(missing_ok=True)
    _tell(
        {
            "operator_id": note.operator_id,
            "accessor": accessor,
            "token": str(files.target),
            "revoked": list(revoked),
            "kept": [one for one in note.old if one not in revoked],
        },
        found,
        as_json=values["json"],
    )
    return Exit.OK


def _is_placed(files: Files, note: Note) -> bool:
    """Whether the file holds the new token already: any but an old one."""
    try:
        return _accessor(files.target.read_text("ascii").strip()) not in note.old
    except FileNotFoundError:
        return False


def _issue(client: "Client", files: Files, note: Note) -> Note:
    """Steps 2 and 3. A token that was made and never written down is revoked, and another made."""
    for _ in range(2):
        body = {"ttl": note.ttl, "reason": note.reason}
        path = _path("credential.issue", operator_id=note.operator_id)
        try:
            made = client.call("POST", path, body=body, key=note.key).document
        except CommandError as error:
            if error.exit is not Exit.UNREACHABLE:  # refused, so nothing was begun
                files.note.unlink()
            raise _with_help(error) from error
        if made["token"] is not None:
            _save(files.beside, f"{made['token']}\n")
            return note
        _revoke(client, note, made["accessor"])
        note = replace(note, key=str(uuid4()))
        _save(files.note, json.dumps(asdict(note)))
    raise CommandError(Exit.UNREACHABLE, "the ledger shows no new token", hint=_AGAIN)


def _prove(files: Files, note: Note, url: str) -> None:
    """Step 4: a read that the operator's roles allow, with the new token alone."""
    from api.cli.client import Client, read_token
    from api.operations import BY_NAME

    row = BY_NAME["policy.show"]
    reads_policy = not row.roles.isdisjoint(note.roles)
    path = row.url() if reads_policy else _path("certificate.status", serial=_NO_SERIAL)
    try:
        with Client(url, read_token(files.beside)) as new:
            new.call("GET", path)
    except CommandError as error:
        if error.exit is Exit.NOT_FOUND and not reads_policy:
            return  # known, allowed, and told that there is no such certificate
        if error.exit is Exit.AUTH:
            files.beside.unlink()
            title = "the new credential does not work; the old one is untouched"
            raise CommandError(Exit.AUTH, title, error.detail, _AGAIN) from error
        raise


def _revoke_old(
    client: "Client", files: Files, note: Note, found: "Chosen", accessor: str
) -> tuple[str, ...]:
    """Step 6, with whichever token still works afterwards: one's own new one, or the caller's."""
    from api.cli.client import Client, read_token

    if _accessor(found.token) not in note.old:
        for one in note.old:
            _revoke(client, note, one)
        return note.old
    with Client(found.url, read_token(files.target)) as new:
        for one in note.old:
            if one != accessor:
                _revoke(new, note, one)
    return note.old


def _revoke(client: "Client", note: Note, accessor: str) -> None:
    path = _path("credential.revoke", operator_id=note.operator_id, accessor=accessor)
    client.call("POST", path, body={"reason": note.reason})


# ---- asking ---------------------------------------------------------------------------------


def _operator_of(client: "Client", accessor: str) -> str:
    """Whose credential this is, from the event that issued it."""
    query = {"about": accessor, "topic": _ISSUED, "limit": "1"}
    try:
        found = client.call("GET", _path("event.list"), query=query).document["items"]
    except CommandError as error:
        raise _with_help(error) from error
    if not found:
        raise CommandError(
            Exit.NOT_FOUND, "it is not on record whose token this is", hint="Give OPERATOR_ID."
        )
    return str(found[0]["stream"])


def _with_help(error: CommandError) -> CommandError:
    """The error with the way out for those who may not issue a credential themselves."""
    if error.exit is not Exit.AUTH:
        return error
    return replace(
        error,
        hint="Only an admin or an approver issues credentials: ask one to run `fedledger operator "
        "rotate OPERATOR_ID --out FILE`. Without any token that works: `fedledger operator "
        "credential --local`.",
    )


def _live(client: "Client", operator_id: str) -> list[str]:
    """The accessors of the operator's credentials that were not revoked."""
    rows = client.call("GET", _path("credential.list", operator_id=operator_id)).document["items"]
    return [str(row["accessor"]) for row in rows if row["revoked_at"] is None]


def _accessor(token: str | None) -> str:
    from ledger.bearer import parse

    parsed = parse(token)
    if parsed is None:
        raise CommandError(Exit.INVALID, "the token in use is not a token of a ledger")
    return parsed.accessor


def _path(name: str, **values: object) -> str:
    from api.operations import BY_NAME

    return BY_NAME[name].url(**{key: quoted(value) for key, value in values.items()})


# ---- files and words ------------------------------------------------------------------------


def _save(path: Path, text: str) -> None:
    from migrations.server import write_private

    write_private(path, text)


def _sync(folder: Path) -> None:
    from migrations.server import sync_folder

    with suppress(OSError):  # it is in its place; not every file system syncs folders
        sync_folder(folder)


def _tell(document: Mapping[str, Any], found: "Chosen", *, as_json: bool) -> None:
    from api.cli import output

    output.show_json(document) if as_json else output.show_record(document)
    output.note(f"The new credential works; its token is in {document['token']}.")
    for one in document["kept"]:
        output.note(
            f"{one} still works. When nobody uses it any more: fedledger operator "
            f"revoke-credential {document['operator_id']} {one} --reason rotation"
        )
    in_use = found.file.resolve() if found.file else None
    if str(in_use) != document["token"] and _accessor(found.token) in document["revoked"]:
        where = str(found.file) if found.file else "FEDLEDGER_TOKEN, or the profile"
        output.note(f"What is in {where} was revoked: let it name the new token.")


rotate: Final = click.Command(
    "rotate",
    params=[
        click.Argument(["operator_id"], required=False),
        click.Option(
            ["--out"],
            type=click.Path(path_type=Path, dir_okay=False),
            help="Write the new token to this new file (0600). Without it, and for oneself, it "
            "takes the place of the token in use.",
        ),
        click.Option(["--ttl"], type=Duration(), help="How long it lives; 90 days if not said."),
        click.Option(
            ["--revoke-old/--keep-old"],
            default=None,
            help="Revoke what the operator has by now. For oneself the credential in use is "
            "revoked if nothing is said; of somebody else's all are kept, and named.",
        ),
        click.Option(["--reason"], help="Why; recorded with it."),
        *connection_options(),
    ],
    help="Replace a credential: one's own, or that of OPERATOR_ID.\n\nA new one is issued, written "
    "to its file and proven with a call before the old one is revoked. Cut short, run it again.",
    callback=_run,
)

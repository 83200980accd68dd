"""Makes a command from a row of the operation table: its arguments, its call, its answer.

It knows no noun: what is particular to one (columns, a story instead of a table) stands in
`api/cli/nouns.py`. The server judges what is sent; here only the form of options is checked.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import click

from api.cli.values import Duration, JsonInput, Moment, Place
from api.operation import Operation

if TYPE_CHECKING:
    from api.cli.client import Answer

Show: TypeAlias = Callable[[Any], None]
_Schema: TypeAlias = Mapping[str, Any]
_SECRETS: Final = ("token",)  # members shown once, and never again
_LAST: Final = ("reason", "limit", "cursor")
_PLACES: Final = ("from", "to")  # members that name a position or a time
_ALL_PAGE: Final = "500"


@dataclass(frozen=True)
class Verb:
    """A row and how its answer is shown.

    columns: of a list's table, dotted for members of members. show: renders the document for
    people instead. secret: the answer holds a token, which `--out` keeps off the terminal.
    judge: the exit code of an answer that is itself a verdict.
    """

    row: Operation
    columns: tuple[str, ...] = ()
    show: Show | None = None
    secret: bool = False
    judge: Callable[[Any], int] | None = None

    @property
    def is_list(self) -> bool:
        """Whether answers come in pages."""
        return self.row.query is not None and "cursor" in self.row.query.model_fields

    def command(self, name: str) -> click.Command:
        """Return the click command."""
        params: list[click.Parameter] = [
            click.Argument([parameter]) for parameter in self.row.parameters
        ]
        params += options(self.row.body) + options(self.row.query)
        params += _conditions(self.row)
        if self.secret:
            params.append(_OUT)
        if self.is_list:
            params.append(_ALL)
        return click.Command(
            name,
            params=[*params, *connection_options()],
            help=f"{self.row.summary}.\n\n{self.row.description}",
            callback=self._run,
        )

    def _run(self, **values: Any) -> int:
        from api.cli.client import Client, connect, ledger_url

        if values.get("out") is not None and values["out"].exists():
            # Asked before the call: a token that cannot be kept must not be made.
            raise click.UsageError(f"{values['out']} exists; nothing is overwritten")
        given = {name: value for name, value in values.items() if value is not None and value != ()}
        path = self.row.url(**{name: quoted(values[name]) for name in self.row.parameters})
        public = self.row.access == "public"
        with (
            Client(ledger_url(values["url"]), None)
            if public
            else connect(values["url"], values["token_file"])
        ) as client:
            query = taken(self.row.query, given)
            if given.get("all"):
                pages = list(client.pages(path, {**query, "limit": _ALL_PAGE}))
                merged = {name: value for name, value in pages[0].items() if name != "next"}
                merged["items"] = [item for page in pages for item in page["items"]]
                self.present(merged, values)
                return 0
            if given.get("dry_run"):
                query["dry_run"] = "true"
            answer = client.call(
                self.row.method,
                path,
                query=query,
                body=self._body(given),
                headers={"If-Match": f'"{given["if_match"]}"'} if "if_match" in given else None,
                key=given.get("idempotency_key"),
                reports=self.row.also,
            )
        self._answered(answer, values)
        return self.judge(answer.document) if self.judge else 0

    def _body(self, given: Mapping[str, Any]) -> dict[str, Any] | None:
        if self.row.body is None:
            return None
        names = self.row.body.model_fields
        body = {name: _plain(given[name]) for name in names if name in given}
        return body | (_scope_from(given) if "scope" in names else {})

    def _answered(self, answer: "Answer", values: Mapping[str, Any]) -> None:
        from api.cli.output import note

        if answer.headers.get("idempotent-replayed") == "true":
            note("already done with this key: this is what it did then")
        if answer.document is None:
            click.echo(answer.content, nl=False)
            if not answer.content:
                note("done")
            return
        self.present(answer.document, values)

    def present(self, document: Any, values: Mapping[str, Any]) -> None:
        """Show an answer as `values` (`json`, `out`) want it, its secret kept off the terminal."""
        from api.cli import output

        if values.get("out") is not None:
            document = _kept(document, values["out"])
        if values["json"]:
            output.show_json(document)
        elif document.get("dry_run") is True:
            output.show_table(document["events"], ("topic", "stream", "version", "data"))
            output.note("nothing was recorded")
        elif self.show is not None:
            self.show(document)
        elif isinstance(document.get("items"), list):
            output.show_table(document["items"], self.columns or _scalars(document["items"]))
            if document.get("next"):
                output.note(f"there is more: --all, or --cursor {document['next']}")
        else:
            output.show_record(document)


_OUT: Final = click.Option(
    ["--out"],
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the token to this new file (0600) instead of the terminal.",
)
_ALL: Final = click.Option(["--all"], is_flag=True, help="Every page, not only one.")


def connection_options() -> list[click.Parameter]:
    """Return the options every command that calls a ledger has."""
    return [
        click.Option(["--json"], is_flag=True, help="The answer as JSON, for programs."),
        click.Option(["--url"], help="The ledger's URL."),
        click.Option(
            ["--token-file"],
            type=click.Path(path_type=Path, dir_okay=False),
            help="A private file (0600) with the token to use.",
        ),
    ]


def _conditions(row: Operation) -> list[click.Parameter]:
    found: list[click.Parameter] = []
    if row.conditional:
        found.append(
            click.Option(["--if-match"], type=int, help="Only if it still has this version.")
        )
    if row.rehearsable:
        found.append(click.Option(["--dry-run"], is_flag=True, help="Show what would be recorded."))
    if row.command and row.method == "POST":
        found.append(
            click.Option(["--idempotency-key"], help="Repeat the call that was given this key.")
        )
    return found


def options(model: Any) -> list[click.Parameter]:
    """Return one option per member of a wire model, typed by its JSON schema."""
    if model is None:
        return []
    schema = model.model_json_schema()
    needed = set(schema.get("required", ()))
    found: list[click.Parameter] = []
    # What is needed first; `reason` and the paging last, as in a sentence.
    members = sorted(schema.get("properties", {}).items(), key=lambda m: m[0] in _LAST)
    for name, member in members:
        if name == "scope":
            found += _scope_options()
        else:
            found.append(_option(name, _resolved(member, schema), required=name in needed))
    return found


def _resolved(member: _Schema, schema: _Schema) -> _Schema:
    """Follow a reference, and leave `null` out of the choice: absent is how null is typed."""
    found = dict(member)
    for choice in member.get("anyOf", ()):
        if choice.get("type") != "null":
            found = {**choice, **{k: v for k, v in member.items() if k != "anyOf"}}
    if "$ref" in found:
        found |= schema["$defs"][found["$ref"].rpartition("/")[2]]
    return found


def _option(name: str, member: _Schema, *, required: bool) -> click.Option:
    text = str(member.get("description") or name.replace("_", " ").capitalize() + ".")
    if name in _PLACES or member.get("format") == "date-time":
        text += " A time as 2026-12-31T00:00:00Z, or as far from now: +30d, -12h."
    flag = f"--{name.replace('_', '-')}"
    if member.get("type") == "boolean":
        return click.Option([f"{flag}/--no-{flag[2:]}"], default=None, required=required, help=text)
    repeated = member.get("type") == "array"
    return click.Option(
        [flag],
        type=_type(name, member.get("items", {}) if repeated else member),
        multiple=repeated,
        required=required,
        help=text,
    )


def _type(name: str, member: _Schema) -> click.ParamType[Any]:
    choices: Sequence[Any] = member.get("enum") or ([member["const"]] if "const" in member else ())
    if choices:
        return click.Choice([str(choice) for choice in choices])
    if member.get("type") == "integer":
        return Duration() if name.endswith("ttl") else click.INT
    if name in _PLACES:
        return Place()
    if member.get("format") == "date-time":
        return Moment()
    return JsonInput() if member.get("type") == "object" else click.STRING


def _scope_options() -> list[click.Parameter]:
    return [
        click.Option(["--scope"], type=JsonInput(), help="A file with the scope as JSON, or -."),
        click.Option(["--resource"], multiple=True, help="Instead of --scope: what may be read."),
        click.Option(["--exclude"], multiple=True, help="Instead of --scope: what may not."),
        click.Option(["--max-rows"], type=int, help="Instead of --scope: rows per query at most."),
    ]


def _scope_from(given: Mapping[str, Any]) -> dict[str, Any]:
    members = {
        "resources": given.get("resource"),
        "excluded_resources": given.get("exclude"),
        "max_rows_per_query": given.get("max_rows"),
    }
    scope = {name: _plain(value) for name, value in members.items() if value is not None}
    if scope and "scope" in given:
        raise click.UsageError("give --scope, or --resource, --exclude and --max-rows; not both")
    return {"scope": scope} if scope else {}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def taken(model: Any, given: Mapping[str, Any]) -> dict[str, str]:
    """Return what was given for the members of a query model, as it is sent."""
    names = model.model_fields if model is not None else ()
    return {name: _text(given[name]) for name in names if name in given}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def quoted(value: object) -> str:
    """Return a value as one segment of a path: what is typed can never become another path."""
    from urllib.parse import quote

    return quote(str(value), safe="")


def _scalars(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    first = rows[0] if rows else {}
    return [name for name, value in first.items() if not isinstance(value, dict | list)]


def _kept(document: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Store the answer's secret in a new private file and return the answer without it."""
    from api.cli.exits import CommandError, Exit
    from api.cli.redeem import write_new

    secret = next((document[name] for name in _SECRETS if document.get(name)), None)
    if secret is None:
        raise CommandError(
            Exit.REFUSED, "the answer holds no token", "A token is shown once, to its first caller."
        )
    try:
        write_new(path, f"{secret}\n".encode(), 0o600)
    except OSError as error:
        raise CommandError(
            Exit.INVALID,
            f"cannot write {path}",
            str(error),
            "The token was made and is lost: make another, this one will be cancelled.",
        ) from error
    return {**document, **{name: str(path) for name in _SECRETS if name in document}}

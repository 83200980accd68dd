"""`fedledger enroll redeem`: the peer turns its token into a certificate. No admin right needed.

What becomes of key, request and certificate as files stands in `api/cli/redeem.py`.
"""

import sys
from pathlib import Path
from typing import Any

import click

from api.cli.redeem import Files, prepare, store


@click.command("redeem")
@click.option("--url", help="The URL of the ledger that gave the token.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="A private file (0600) with the enrollment token, or - for stdin; else you are asked.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="A directory for key, request and certificate; what is there is never overwritten.",
)
@click.option("--json", "as_json", is_flag=True, help="The answer as JSON, for programs.")
def redeem(url: str | None, token_file: Path | None, out: Path, as_json: bool) -> None:
    """Make a key and a request, redeem an enrollment token, store the certificate.

    Needs only the ledger's URL and the token. The private key never leaves the directory. Cut
    short, it can be run again: the same token and request give the same certificate.
    """
    from api.cli.client import Client, ledger_url, refuse_in_the_clear
    from api.operations import BY_NAME

    address = ledger_url(url)
    refuse_in_the_clear(address)
    token = _token(token_file)
    files = Files(out)
    request = prepare(files)
    row = BY_NAME["enrollment.redeem"]
    with Client(address, None) as client:
        answer = client.call(row.method, row.path, body={"token": token, "csr": request})
    stored(files, answer.document, as_json=as_json)


def stored(files: Files, issued: dict[str, Any], *, as_json: bool) -> None:
    """Store a certificate that came, beside the key it is for, and say where."""
    from api.cli import output

    store(files, issued["certificate"], issued["certificate"] + issued["chain"])
    shown = {
        **{name: issued[name] for name in ("serial", "grant_id", "not_before", "not_after")},
        "key": str(files.key),
        "certificate": str(files.certificate),
        "chain": str(files.chain),
    }
    if as_json:
        output.show_json(shown)
    else:
        output.show_record(shown)


def _token(path: Path | None) -> str:
    from api.cli.client import read_token

    if path is None and sys.stdin.isatty():
        return str(click.prompt("Enrollment token", hide_input=True, err=True)).strip()
    if path is None:
        raise click.UsageError("give --token-file FILE, or --token-file - to read it from stdin")
    return sys.stdin.readline().strip() if str(path) == "-" else read_token(path)

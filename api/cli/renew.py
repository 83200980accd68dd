"""`fedledger cert renew`: the peer turns its certificate into the next one, with a new key.

Who calls is shown by TLS, so it goes to the proxy in front of the ledger. What becomes of key,
request and certificate as files stands in `api/cli/redeem.py`.
"""

from pathlib import Path

import click

from api.cli.enroll import stored
from api.cli.exits import CommandError, Exit
from api.cli.redeem import Files, prepare

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("renew")
@click.option("--url", help="The URL of the proxy in front of the ledger, https.")
@click.option(
    "--cert", "certificate", type=_FILE, required=True,
    help="The certificate to renew, PEM; chain.pem if the proxy needs what signed it.",
)  # fmt: skip
@click.option("--key", type=_FILE, required=True, help="Its private key, PEM.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="A directory for the new key, request and certificate; nothing there is overwritten.",
)
@click.option("--json", "as_json", is_flag=True, help="The answer as JSON, for programs.")
def renew(url: str | None, certificate: Path, key: Path, out: Path, as_json: bool) -> None:
    """Make a new key and a request, and renew a client certificate that is in force.

    In the last third of its life; before, exit code 1. Needs no token. Cut short, run it again as
    it was: the same certificate and request give the same successor. Another request instead,
    such as one from another --out, looks as if the key were in two hands: the grant is suspended.
    """
    from api.cli.client import Client, ledger_url
    from api.operations import BY_NAME

    serial = _serial(certificate)
    files = Files(out)
    row = BY_NAME["certificate.renew"]
    with Client(ledger_url(url), None, presents=(certificate, key)) as client:
        request = prepare(files)
        answer = client.call(row.method, row.url(serial=serial), body={"csr": request})
    stored(files, answer.document, as_json=as_json)


def _serial(path: Path) -> str:
    """The serial of the first certificate in a PEM file, as the ledger writes it."""
    from cryptography import x509

    try:
        return f"{x509.load_pem_x509_certificates(path.read_bytes())[0].serial_number:032x}"
    except (OSError, ValueError) as error:
        raise CommandError(Exit.INVALID, f"{path} holds no certificate", str(error)) from error

"""`fedledger demo`: the whole story on a throw-away ledger, each step checked as it is played.

Everything goes through the doors everybody uses, the HTTP interface and the console script: what
the demo shows is what an installation does. The stage it is played on is `api/cli/stage.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from api.cli import output, timeline
from api.cli.exits import CommandError, Exit
from api.cli.stage import Ran, Stage, stage
from api.cli.stage_ca import FOLDER, find_program

GRANT_OID: Final = "1.3.6.1.4.1.99999.1"
SUBJECT_USER_OID: Final = "1.3.6.1.4.1.99999.2"
_USER: Final = "user-17"


@click.command("demo")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout at the end.")
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the ledger in this new or empty directory.",
)
@click.option("--ca", type=click.Choice(["local", "step-ca"]), default="local", show_default=True,
              help="What signs certificates: the ledger itself, or a real step-ca.")  # fmt: skip
@click.option("--step-ca-program", type=click.Path(path_type=Path, dir_okay=False),
              help="The step-ca to run; else one in PATH, or that of tests/step_ca/build.sh.")  # fmt: skip
def demo(as_json: bool, keep: Path | None, ca: str, step_ca_program: Path | None) -> None:
    """Play the whole story on a throw-away ledger: propose, approve, enroll, revoke, prove.

    With --ca step-ca it sets a step-ca up, starts it, and has it sign. Touches no real home, database or profile. Ends with 0 only if every step did what it should.
    """
    program = find_program(step_ca_program) if ca == "step-ca" else None
    told = Told()
    told.document["ca"] = ca
    output.note("A throw-away ledger is being made; this takes some seconds.")
    try:
        with stage(keep, program) as place:
            Story(place, told).play()
    except CommandError as error:
        told.document["failed"] = {"title": error.title, "detail": error.detail}
        raise
    finally:
        if as_json:
            output.show_json(told.document)
    if not as_json:
        click.echo("\n".join(["", "The history of the first grant:", "", *told.story]))
    output.note("Everything was as it should be.", mark="✓", colour="green")
    if keep:
        output.note(f"Kept in {keep.absolute()}. To go on:")
        if program:
            folder = keep.absolute() / FOLDER
            files = f"{folder}/config/ca.json --password-file {folder}/secrets/password"
            output.note(f"  {program} {files} &")
        output.note(f"  FEDLEDGER_HOME={keep.absolute()} fedledger serve")


@dataclass
class Told:
    """What the demo has to show: the document for programs, the story for people."""

    document: dict[str, Any] = field(
        default_factory=lambda: {
            "ok": False, "ca": "local", "peer": None, "grants": [], "certificate": None, "extensions": {},
            "events": [], "checks": [],
        }
    )  # fmt: skip
    story: list[str] = field(default_factory=list)


class Story:
    """The steps, in order; each raises `CommandError` when something else came than expected."""

    def __init__(self, place: Stage, told: Told) -> None:
        self._place = place
        self._told = told
        self._document = told.document
        self._admin = place.home / "admin.token"
        self._approver = place.home / "approver.token"
        self._token = place.home / "enrollment.token"
        self._peer = place.home / "peer"

    def play(self) -> None:
        """Play all of it."""
        self._done(f"A ledger of its own answers at {self._place.url}.")
        peer_id = self._register_and_activate()
        plain, sensitive = self._propose(peer_id)
        self._approve(sensitive)
        certificate = self._enroll(plain["id"])
        self._refuse_another_request()
        self._revoke(plain["id"], certificate)
        self._show_history(plain["id"], sensitive["id"])
        self._check_record()
        self._document["ok"] = True

    def _register_and_activate(self) -> str:
        peer = self._admin_runs(
            "peer", "register", "--name", "Example Hospital",
            "--base-url", "https://ledger.hospital.example",
        )  # fmt: skip
        self._done(f"The admin registered the peer {peer['name']}; it is {peer['state']}.")
        peer = self._admin_runs(
            "peer", "activate", peer["id"],
            "--verification", "Called the number in the contract and compared the key digest.",
        )  # fmt: skip
        self._expect("the peer's state", peer["state"], "active")
        self._document["peer"] = peer
        self._done("The admin verified who it is, and activated it.")
        return str(peer["id"])

    def _propose(self, peer_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
        plain = self._proposal(peer_id, "tasks", "Shared care plan.")
        self._expect("the status of a plain grant", plain["status"], "pending_enrollment")
        self._done("A grant for tasks was proposed; it needs no second person.")
        sensitive = self._proposal(peer_id, "credentials", "Single sign-on between the wards.")
        self._expect("the status of a sensitive grant", sensitive["status"], "pending_approval")
        self._done("A grant for credentials was proposed; that is sensitive and waits.")
        return plain, sensitive

    def _proposal(self, peer_id: str, resource: str, reason: str) -> dict[str, Any]:
        return self._admin_runs(
            "grant", "propose", "--peer-id", peer_id, "--subject-user-id", _USER,
            "--resource", resource, "--max-rows", "100", "--expires-at", "+30d",
            "--reason", reason,
        )  # fmt: skip

    def _approve(self, grant: Mapping[str, Any]) -> None:
        approval = (
            "grant", "approve", grant["id"], "--terms-digest", grant["terms_digest"],
            "--reason", "Checked against the request.",
        )  # fmt: skip
        self._refused("the admin's own approval", self._place.run(*approval, token=self._admin))
        self._done("The admin tried to approve it himself, and was refused.")
        approved = self._ran(
            "the approver's approval", self._place.run(*approval, token=self._approver)
        )
        self._expect("the status after approval", approved["status"], "pending_enrollment")
        self._done("The approver, another person, approved exactly these terms.")

    def _enroll(self, grant_id: str) -> str:
        made = self._admin_runs("enroll", "token", grant_id, "--out", str(self._token))
        self._done(f"An enrollment token was made, good to {output.when(made['expires_at'])}.")
        issued = self._ran("the redemption", self._redeem(self._peer))
        certificate = Path(issued["certificate"]).read_text("ascii")
        self._document["certificate"] = certificate
        self._done(
            "The peer made its key and request, and redeemed the token for certificate "
            f"{issued['serial'][:12]}…, good to {output.when(issued['not_after'])}."
        )
        self._check_extensions(certificate, grant_id)
        return str(issued["serial"])

    def _check_extensions(self, certificate: str, grant_id: str) -> None:
        from api.cli.redeem import read_extension

        for oid, wanted in ((GRANT_OID, grant_id), (SUBJECT_USER_OID, _USER)):
            found = read_extension(certificate, oid)
            self._expect(f"the extension {oid}", found, wanted)
            self._document["extensions"][oid] = found
            self._done(f"The certificate says {oid} = {found}.")

    def _refuse_another_request(self) -> None:
        another = self._redeem(self._place.home / "thief")
        self._refused("the token's use with another request", another)
        self._done("The same token with another key was refused, and the ledger noted it.")

    def _revoke(self, grant_id: str, serial: str) -> None:
        before = self._admin_runs("cert", "status", serial)
        self._expect("the certificate's status", before["status"], "good")
        revoked = self._admin_runs(
            "grant", "revoke", grant_id, "--reason", "The patient withdrew consent."
        )
        self._expect("the grant's status", revoked["status"], "revoked")
        after = self._admin_runs("cert", "status", serial)
        self._expect("the certificate's status after that", after["status"], "revoked")
        self._done("The grant was revoked, and its certificate with it, at once.")

    def _show_history(self, *grant_ids: str) -> None:
        from api.cli.client import Client, read_token

        with Client(self._place.url, read_token(self._admin)) as client:
            grants = [client.call("GET", f"/v1/grants/{name}").document for name in grant_ids]
            first = client.call("GET", f"/v1/grants/{grant_ids[0]}/history").document
            pages = client.pages("/v1/events", {"limit": "500"})
            events = [event for page in pages for event in page["items"]]
        self._document["grants"], self._document["events"] = grants, events
        self._told.story = timeline.lines(first["items"], output.terminal_width())
        self._expect("the positions", [e["position"] for e in events], [*range(1, len(events) + 1)])
        self._done(f"All of it is on record: {len(events)} events, none missing.")

    def _check_record(self) -> None:
        examined = self._place.run("doctor")
        checks = (examined.document or {}).get("checks", [])
        self._document["checks"] = checks
        integrity = next((check for check in checks if check["id"] == "integrity"), None)
        if integrity is None or integrity["status"] != "ok":
            came = integrity["detail"] if integrity else examined.errors
            raise CommandError(Exit.INTEGRITY, "the record is not sound", str(came))
        self._done(f"The record was recomputed and is sound: {integrity['detail']}")
        self._check_authority(checks)

    def _check_authority(self, checks: list[dict[str, Any]]) -> None:
        found = {check["id"]: check["status"] for check in checks if check["id"].startswith("ca-")}
        if self._document["ca"] == "local":
            self._expect("the checks of a step-ca", found, {})
            return
        ailing = {name: status for name, status in found.items() if status != "ok"}
        self._expect("what doctor finds at the step-ca", ailing, {})
        self._expect("the number of checks at the step-ca", len(found) > 0, True)
        self._done(f"Doctor looked at the step-ca, and {len(found)} checks found nothing.")

    # ---- how a step is played and judged --------------------------------------------------

    def _redeem(self, out: Path) -> Ran:
        return self._place.run(
            "enroll", "redeem", "--token-file", str(self._token), "--out", str(out)
        )

    def _admin_runs(self, *arguments: str) -> dict[str, Any]:
        return self._ran(" ".join(arguments[:2]), self._place.run(*arguments, token=self._admin))

    def _ran(self, what: str, ran: Ran) -> dict[str, Any]:
        if ran.exit != Exit.OK or not isinstance(ran.document, dict):
            raise _surprise(what, "exit 0 and a JSON document", f"exit {ran.exit}", ran.errors)
        return ran.document

    def _refused(self, what: str, ran: Ran) -> None:
        if ran.exit != Exit.AUTH:
            raise _surprise(what, f"exit {int(Exit.AUTH)}", f"exit {ran.exit}", ran.errors)

    def _expect(self, what: str, came: object, wanted: object) -> None:
        if came != wanted:
            raise _surprise(what, repr(wanted), repr(came))

    def _done(self, text: str) -> None:
        output.note(text, mark="✓", colour="green")


def _surprise(what: str, expected: str, came: str, more: str = "") -> CommandError:
    return CommandError(
        Exit.REFUSED, f"{what} was not as it should be", f"expected {expected}, got {came}\n{more}"
    )

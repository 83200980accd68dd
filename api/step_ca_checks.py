"""Doctor's look at the step-ca that a ledger issues with. It mends nothing; a local one has none.

What is looked at stands in `ca/step_ca_probes.py`; here is what the home knows of the server.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from api import authorities
from api.findings import Check
from api.settings import Settings
from api.step_ca import TIMEOUT
from ca.authority import AuthorityFilesError
from ca.step_ca import StepCaAuthority
from ca.step_ca_home import Description
from ca.step_ca_probes import Finding, Subject, examine


def checks(settings: Settings, clock: Callable[[], datetime]) -> list[Check]:
    """Look at the newest step-ca of this home; nothing to say where there is none."""
    for folder in reversed(authorities.folders(settings.home)):
        try:
            described = Description.read(folder)
        except AuthorityFilesError:
            continue  # a local authority's, or broken: the check of the authority says so
        subject = _subject(described, settings, folder)
        return [_check(one) for one in examine(subject, clock, timeout=TIMEOUT)]
    return []


def _subject(described: Description, settings: Settings, folder: Path) -> Subject:
    key: ec.EllipticCurvePublicKey | None = None
    passwords: list[bytes] = []
    with suppress(AuthorityFilesError):  # said by the check of the key
        passwords = described.passwords()
        key = StepCaAuthority.open(folder).home.key.public_key()
    return Subject(
        url=described.url, provisioner=described.provisioner, root=described.root,
        issuing=described.issuing, key=key, passwords=passwords, arc=settings.arc,
    )  # fmt: skip


def _check(finding: Finding) -> Check:
    return Check(finding.id, finding.status, finding.detail, finding.hint)

"""What ca.json must say for the ledger to rely on its step-ca: written anew, or brought up to date.

Documents in and out; it reads and writes no file. What the ledger does not depend on (other
provisioners, addresses, TLS, lists of revoked certificates) is the operator's and stays as it is.
"""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from ca.profile import DEFAULT_ARC
from ca.step_ca_template import arc_of, digest, template

PROVISIONER: Final = "mosaic-fed"
"""The name of the provisioner whose tokens the ledger signs."""

REQUIRED_CLAIMS: Final[Mapping[str, bool]] = {
    # Renewal copies our extensions under a new serial that the ledger never saw.
    "disableRenewal": True,
    # Its provisioner extension says whose token a certificate came of; without it, and without a
    # database, renewal succeeds whatever disableRenewal says.
    "disableSmallstepExtensions": False,
    "enableSSHCA": False,
}
# Only where the operator said nothing. Five minutes is the least the ledger orders.
_DURATIONS: Final[Mapping[str, str]] = {
    "minTLSCertDuration": "5m0s",
    "maxTLSCertDuration": "24h0m0s",
    "defaultTLSCertDuration": "24h0m0s",
}

_HOST: Final = re.compile(r"[A-Za-z0-9._:-]{1,253}", re.ASCII)
_ADDRESS: Final = re.compile(r"(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9._-]*):[0-9]{1,5}", re.ASCII)

Document: TypeAlias = dict[str, Any]


class ConfigError(Exception):
    """ca.json says something that cannot be worked with. The text names it, no secret."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where the server stands, as itself sees it. None: as it is, or a default if there is none.

    `directory`: of its files. `names`: what its clients call it. `address`: such as `:9000`.
    """

    directory: str
    names: Sequence[str] | None = None
    address: str | None = None
    moved: bool = False  # the directory was asked for: paths that are there change as well


DEFAULT_NAMES: Final = ("localhost", "127.0.0.1")
DEFAULT_ADDRESS: Final = ":9000"


def up_to_date(
    config: Document | None, site: Site, public_jwk: Document, arc: str | None = None
) -> tuple[Document, tuple[str, ...]]:
    """Return ca.json as it must be, and what of it that changes, for people; empty: nothing.

    `config`: as it is, None if there is none; it is not altered. `public_jwk`: of our provisioner.
    `arc`: None for the one that is there, else the default.

    Raises:
        ConfigError: it is not what step-ca reads, or is not read by step-ca.
    """
    if config is None:
        fresh: Document = {"logger": {"format": "json"}, "authority": {"provisioners": []}}
        return up_to_date(fresh, site, public_jwk, arc)[0], ("ca.json made",)
    wanted = copy.deepcopy(config)
    changes = [*_place(wanted, site), *_provisioner(wanted, public_jwk, arc)]
    return wanted, tuple(changes)


def provisioner_in(config: Document) -> Document | None:
    """Return our provisioner's entry, None if there is none.

    Raises:
        ConfigError: see `up_to_date`.
    """
    authority = config.get("authority")
    provisioners = authority.get("provisioners") if isinstance(authority, dict) else None
    if not isinstance(authority, dict) or not isinstance(provisioners, list):
        raise ConfigError("ca.json has no list authority.provisioners")
    if authority.get("enableAdmin"):
        raise ConfigError(
            "authority.enableAdmin is set: step-ca keeps its provisioners in its database and "
            "reads none from ca.json; take it away first"
        )
    found = [
        one for one in provisioners if isinstance(one, dict) and one.get("name") == PROVISIONER
    ]
    if len(found) > 1 or any(one.get("type") != "JWK" for one in found):
        raise ConfigError(
            f"the name {PROVISIONER} belongs to something else than one JWK provisioner"
        )
    return found[0] if found else None


def _place(config: Document, site: Site) -> list[str]:
    """Paths, names, address and database."""
    paths = {
        "root": f"{site.directory}/certs/root_ca.crt",
        "crt": f"{site.directory}/certs/intermediate_ca.crt",
        "key": f"{site.directory}/secrets/intermediate_ca_key",
    }
    changed = []
    for name, path in paths.items():
        changed += _set(config, name, path, force=site.moved)
    _refuse_malformed(site)
    changed += _set(config, "address", site.address or DEFAULT_ADDRESS, force=bool(site.address))
    names = list(site.names or DEFAULT_NAMES)
    changed += _set(config, "dnsNames", names, force=site.names is not None)
    # Without a database it can revoke nothing, forgets used tokens when it restarts, and keeps no
    # list of what it signed.
    database = {"type": "bbolt", "dataSource": f"{site.directory}/db/step-ca.bolt"}
    found = config.get("db")
    ours = isinstance(found, dict) and found.get("type") == "bbolt"
    return [*changed, *_set(config, "db", database, force=site.moved and ours)]


def _refuse_malformed(site: Site) -> None:
    for name in site.names or ():
        if not _HOST.fullmatch(name):
            raise ConfigError("a name of the server is a host name or an address, without a port")
    if site.address is not None and not _ADDRESS.fullmatch(site.address):
        raise ConfigError("the address to listen on is HOST:PORT or :PORT")


def _set(config: Document, name: str, value: object, *, force: bool) -> list[str]:
    if config.get(name) == value or (config.get(name) and not force):
        return []
    config[name] = value
    return [f"{name} set"]


def _provisioner(config: Document, public_jwk: Document, arc: str | None) -> list[str]:
    entry = provisioner_in(config)
    if entry is None:
        entry = {"type": "JWK", "name": PROVISIONER, "key": public_jwk}
        config["authority"]["provisioners"].append(entry)
        _claims(entry)
        _template(entry, arc)
        return [f"provisioner {PROVISIONER} added"]
    changed = [*_claims(entry), *_template(entry, arc)]
    if entry.get("key") != public_jwk:
        entry["key"] = public_jwk
        changed.append("the provisioner's key replaced")
    if "encryptedKey" in entry:
        del entry["encryptedKey"]
        changed.append("the provisioner's encrypted key is served no more")
    return changed


def _claims(entry: Document) -> list[str]:
    claims = entry.setdefault("claims", {})
    if not isinstance(claims, dict):
        raise ConfigError(f"the claims of the provisioner {PROVISIONER} are no object")
    changed = []
    for name, value in REQUIRED_CLAIMS.items():
        if claims.get(name) is not value:
            claims[name] = value
            changed.append(f"claim {name} set")
    for name, duration in _DURATIONS.items():
        if name not in claims:
            claims[name] = duration
            changed.append(f"claim {name} set")
    return changed


def _template(entry: Document, arc: str | None) -> list[str]:
    options = entry.setdefault("options", {})
    x509 = options.setdefault("x509", {}) if isinstance(options, dict) else None
    if not isinstance(x509, dict):
        raise ConfigError(f"the options of the provisioner {PROVISIONER} are no objects")
    text = template(arc or arc_of(str(x509.get("template"))) or DEFAULT_ARC)
    if x509.get("template") == text and "templateFile" not in x509:
        return []
    # Inline: the server then shows it to whoever asks, and doctor can compare it.
    x509.pop("templateFile", None)
    x509["template"] = text
    return [f"template brought up to date ({digest(text)[:12]}…)"]

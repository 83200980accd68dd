"""What the environment says. The only reader of it; it opens, makes and checks nothing.

Every setting is a variable `FEDLEDGER_<NAME>`. The DSNs may hold passwords, so they are kept as
secrets: no repr, log line or error shows them.
"""

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, SecretStr, StringConstraints, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_ROOT_HOME: Final = Path("/var/lib/fedledger")


class SettingsError(Exception):
    """The environment cannot be used; the text says which variable and what to do, no value."""


def default_home() -> Path:
    """Where keys, tokens and the private database stand unless FEDLEDGER_HOME says otherwise."""
    if os.geteuid() == 0:
        return _ROOT_HOME
    return Path.home() / ".local" / "state" / "fedledger"


class Settings(BaseSettings):
    """Everything that can be chosen from outside. Times are in seconds."""

    model_config = SettingsConfigDict(
        env_prefix="FEDLEDGER_", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    dsn: Annotated[
        SecretStr | None,
        Field(description="libpq conninfo of the restricted role; absent: a private PostgreSQL"),
    ] = None
    owner_dsn: Annotated[
        SecretStr | None, Field(description="of the owning role; for init and migrate only")
    ] = None
    home: Annotated[
        Path,
        Field(description="keys, tokens, the private PostgreSQL", default_factory=default_home),
    ]
    pg_bindir: Annotated[Path | None, Field(description="binaries for the private PostgreSQL")] = (
        None
    )
    host: Annotated[str, Field(description="address to listen on; loopback")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="0 lets the system choose")] = 8440
    origin: Annotated[
        str | None,
        StringConstraints(pattern=r"^[a-z0-9.-]+(/[a-z0-9.-]+)*$", max_length=200),
        Field(
            description="the ledger's name for ever, chosen at init; <hostname>/fedledger if absent"
        ),
    ] = None
    ca: Annotated[
        str,
        StringConstraints(pattern=r"^(local|step-ca)$"),
        Field(description="what signs certificates, for init and up: local or step-ca"),
    ] = "local"
    ca_url: Annotated[
        str | None, Field(description="of the step-ca, such as https://ca.example.org:9000")
    ] = None
    ca_root_fingerprint: Annotated[
        str | None,
        Field(description="SHA-256 of its root, 64 hex; absent: root_fingerprint in CA_FILES"),
    ] = None
    ca_files: Annotated[
        Path | None, Field(description="folder for-ledger of `fedledger ca init-step-ca`")
    ] = None
    ca_password_file: Annotated[
        Path | None,
        Field(description="the provisioner's password, read at each start; absent: a copy is kept"),
    ] = None
    arc: Annotated[
        str,
        StringConstraints(pattern=r"^(0|1|2)(\.(0|[1-9][0-9]{0,9})){1,15}$"),
        Field(description="object identifier that the two extensions of a certificate stand under"),
    ] = "1.3.6.1.4.1.99999"
    behind_proxy: Annotated[
        bool,
        Field(description="a proxy ends TLS in front: other addresses than loopback may be bound"),
    ] = False
    trusted_proxy: Annotated[
        str, Field(description="the one address whose X-Forwarded-For is believed")
    ] = "127.0.0.1"
    client_certificates: Annotated[
        Literal["off", "client-cert", "x-ssl-client-cert"],
        Field(
            description="header in which that proxy hands on a peer's certificate: client-cert "
            "(RFC 9440) or x-ssl-client-cert (escaped PEM, for nginx); off: none is read"
        ),
    ] = "off"
    threads: Annotated[int, Field(ge=1, le=256, description="requests served at once")] = 16
    processors: Annotated[
        Literal["one", "all"],
        Field(
            description="one: the service's threads share a processor, which is faster, because "
            "only one of them runs at a time; all: the system places them"
        ),
    ] = "one"
    log_level: Annotated[
        str,
        StringConstraints(pattern=r"^(debug|info|warning|error)$"),
        Field(description="the least that is written: debug, info, warning or error"),
    ] = "info"
    bad_credentials_per_minute: Annotated[
        int, Field(ge=1, le=100_000, description="from one source, then 429")
    ] = 30
    enrollments_per_minute: Annotated[
        int, Field(ge=1, le=100_000, description="from one source, then 429")
    ] = 60

    @model_validator(mode="after")
    def _loopback_unless_behind_proxy(self) -> Self:
        if not self.behind_proxy and not _is_loopback(self.host):
            # Bearer tokens would cross a network in the clear.
            raise ValueError("FEDLEDGER_HOST must be loopback unless FEDLEDGER_BEHIND_PROXY is set")
        return self

    @model_validator(mode="after")
    def _certificates_come_from_one_proxy(self) -> Self:
        if self.client_certificates != "off" and not (
            self.behind_proxy and _is_address(self.trusted_proxy)
        ):
            # Whoever may send that header is whichever peer he says he is.
            raise ValueError(
                "FEDLEDGER_CLIENT_CERTIFICATES needs FEDLEDGER_BEHIND_PROXY, and one address as "
                "FEDLEDGER_TRUSTED_PROXY"
            )
        return self

    @model_validator(mode="after")
    def _a_step_ca_is_named(self) -> Self:
        if self.ca == "step-ca" and (self.ca_url is None or self.ca_files is None):
            raise ValueError("FEDLEDGER_CA=step-ca needs FEDLEDGER_CA_URL and FEDLEDGER_CA_FILES")
        return self

    @property
    def embedded(self) -> bool:
        """Whether the private PostgreSQL is used."""
        return self.dsn is None and self.owner_dsn is None


class ClientSettings(BaseSettings):
    """What the command line needs to call a ledger; a profile file may say it instead."""

    model_config = Settings.model_config

    url: Annotated[str | None, Field(description="of the ledger to call")] = None
    token: Annotated[SecretStr | None, Field(description="the token itself; a file is safer")] = (
        None
    )
    token_file: Annotated[Path | None, Field(description="private file with the token")] = None
    profile: Annotated[
        Path,
        Field(
            description="private TOML file with url, and token or token_file",
            default_factory=lambda: Path.home() / ".config" / "fedledger" / "profile.toml",
        ),
    ]


def load_client() -> ClientSettings:
    """Read what the command line needs from the environment.

    Raises:
        SettingsError: a value is not valid.
    """
    try:
        return ClientSettings()
    except ValidationError as error:
        raise SettingsError("; ".join(_described(error))) from None


def user_cache() -> Path:
    """Where this user's programs keep what can be made again (XDG base directories)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def without_real_ledger() -> dict[str, str]:
    """This process's environment without whatever could lead to a real ledger or database.

    For children that must not touch one (the demo). Where PostgreSQL's binaries are stays.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if name == "FEDLEDGER_PG_BINDIR" or not name.startswith(("FEDLEDGER_", "PG"))
    }


def load(**chosen: Any) -> Settings:
    """Read the environment; `chosen` goes before it, where it is not None.

    Raises:
        SettingsError: a value is not valid.
    """
    try:
        return Settings(**{name: value for name, value in chosen.items() if value is not None})
    except ValidationError as error:
        raise SettingsError("; ".join(_described(error))) from None


def _described(error: ValidationError) -> list[str]:
    return [
        (f"FEDLEDGER_{'_'.join(map(str, one['loc'])).upper()}: " if one["loc"] else "") + one["msg"]
        for one in error.errors(include_input=False, include_url=False)
    ]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

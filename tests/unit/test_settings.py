"""What the environment may say, and that its secrets stay secret."""

from pathlib import Path

import pytest

from api import settings


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = settings.without_real_ledger()
    for name in settings.os.environ.keys() - kept.keys():
        monkeypatch.delenv(name)


def test_defaults_are_loopback_and_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings.load()
    assert found.embedded
    assert (found.host, found.behind_proxy, found.threads) == ("127.0.0.1", False, 16)
    monkeypatch.setattr(settings.os, "geteuid", lambda: 0)
    assert settings.default_home() == Path("/var/lib/fedledger")
    monkeypatch.setattr(settings.os, "geteuid", lambda: 1000)
    assert settings.default_home() == Path.home() / ".local/state/fedledger"


def test_no_repr_shows_a_dsn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDLEDGER_DSN", "host=x password=sekrit")
    monkeypatch.setenv("FEDLEDGER_OWNER_DSN", "host=x password=sekrit")
    found = settings.load()
    assert not found.embedded
    assert "sekrit" not in f"{found!r} {found} {found.model_dump_json()}"
    monkeypatch.setenv("FEDLEDGER_PORT", "sekrit")
    with pytest.raises(settings.SettingsError) as refused:
        settings.load()
    assert "FEDLEDGER_PORT" in str(refused.value)
    assert "sekrit" not in str(refused.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org"])
def test_only_loopback_without_a_proxy(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("FEDLEDGER_HOST", host)
    with pytest.raises(settings.SettingsError, match="loopback"):
        settings.load()
    monkeypatch.setenv("FEDLEDGER_BEHIND_PROXY", "true")
    assert settings.load().host == host


@pytest.mark.parametrize("form", ["client-cert", "x-ssl-client-cert"])
def test_certificates_are_taken_from_one_proxy_only(
    monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    assert settings.load().client_certificates == "off"
    monkeypatch.setenv("FEDLEDGER_CLIENT_CERTIFICATES", form)
    with pytest.raises(settings.SettingsError, match="BEHIND_PROXY"):
        settings.load()
    monkeypatch.setenv("FEDLEDGER_BEHIND_PROXY", "true")
    assert settings.load().client_certificates == form
    for nobody in ("*", "proxy.example", ""):
        monkeypatch.setenv("FEDLEDGER_TRUSTED_PROXY", nobody)
        with pytest.raises(settings.SettingsError, match="TRUSTED_PROXY"):
            settings.load()
    monkeypatch.setenv("FEDLEDGER_CLIENT_CERTIFICATES", "any")
    with pytest.raises(settings.SettingsError, match="CLIENT_CERTIFICATES"):
        settings.load()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("FEDLEDGER_HOST", host)
    assert settings.load().host == host

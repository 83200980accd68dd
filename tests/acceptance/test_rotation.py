"""Rotating everything under a running service: no request fails, no secret shows, nothing is lost."""

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography import x509

from api.cli import rotate, run
from api.cli.client import Client
from migrations.embedded import Embedded
from support.http import csr
from support.installation import Installation, installation, running
from support.waiting import wait_until

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

ENOUGH = 5  # requests of each kind before and after each rotation


@pytest.fixture(scope="module")
def place() -> Iterator[Installation]:
    with installation() as made:
        made.extra["FEDLEDGER_URL"] = made.url
        made.extra["FEDLEDGER_ENROLLMENTS_PER_MINUTE"] = "100000"  # all from one source here
        with running(made):
            yield made
        checks = {one["id"]: one for one in made.run("doctor", "--json").document["checks"]}
        assert {name: one for name, one in checks.items() if one["status"] == "fail"} == {}


def operator(place: Installation, file: Path, role: str = "admin") -> str:
    """A new operator with a credential in `file`; its id."""
    made = place.ok("operator", "register", "--kind", "machine", "--roles", role)
    place.ok("operator", "credential", made["id"], "--out", str(file))
    return str(made["id"])


def live(place: Installation, operator_id: str) -> list[str]:
    with place.http(place.admin) as client:
        rows = client.get(f"/v1/operators/{operator_id}/credentials").json()["items"]
    return [row["accessor"] for row in rows if row["revoked_at"] is None]


def works(place: Installation, file: Path) -> bool:
    with place.http(file) as client:
        return client.get("/v1/policy").status_code == 200


def leftovers(folder: Path) -> list[Path]:
    return [*folder.glob("*.rotation"), *folder.glob("*.next*"), *folder.glob("*.new")]


# ---- an operator's credential ---------------------------------------------------------------


def test_ones_own_credential_takes_the_place_of_the_old_one(
    place: Installation, tmp_path: Path
) -> None:
    file, old = tmp_path / "mine.token", tmp_path / "old.token"
    one = operator(place, file)
    old.write_text(file.read_text())
    old.chmod(0o600)
    ended = place.run("operator", "rotate", "--token-file", str(file))
    assert ended.code == 0, ended
    assert works(place, file)
    assert not works(place, old)
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(live(place, one)) == 1
    for secret in (file.read_text().strip(), old.read_text().strip()):
        assert secret not in ended.out + ended.err
    assert leftovers(tmp_path) == []


def test_the_old_one_can_be_kept(place: Installation, tmp_path: Path) -> None:
    file = tmp_path / "mine.token"
    one = operator(place, file)
    (old,) = live(place, one)
    ended = place.run("operator", "rotate", "--token-file", str(file), "--keep-old")
    assert ended.code == 0, ended
    assert f"revoke-credential {one} {old}" in ended.err
    assert sorted(live(place, one)) != [old]
    assert old in live(place, one)


@pytest.mark.parametrize("role", ["auditor", "gateway", "operator"])
def test_somebody_elses_is_handed_over_before_the_old_one_ends(
    place: Installation, tmp_path: Path, role: str
) -> None:
    theirs, new = tmp_path / "theirs.token", tmp_path / "new.token"
    one = operator(place, theirs, role)
    (old,) = live(place, one)
    # They may not do it themselves, and are told who may.
    refused = place.run("operator", "rotate", "--token-file", str(theirs))
    assert refused.code == 4
    assert "ask one to run" in refused.err
    assert leftovers(tmp_path) == []
    ended = place.run("operator", "rotate", one, "--out", str(new), "--ttl", "30d")
    assert ended.code == 0, ended
    assert sorted(live(place, one)) == sorted([old, new.read_text().split("_")[1]])
    assert f"revoke-credential {one} {old}" in ended.err
    assert place.run("operator", "rotate", one, "--out", str(new)).code == 2  # it exists
    last = tmp_path / "last.token"
    place.ok("operator", "rotate", one, "--out", str(last), "--revoke-old")
    assert live(place, one) == [last.read_text().split("_")[1]]


def test_a_token_that_is_in_no_file_needs_one_for_the_new(
    place: Installation, tmp_path: Path
) -> None:
    file, new = tmp_path / "mine.token", tmp_path / "new.token"
    operator(place, file)
    environment = {"FEDLEDGER_TOKEN": file.read_text().strip()}
    ended = place.run("operator", "rotate", **environment)
    assert ended.code == 2
    assert "--out" in ended.err
    ended = place.run("operator", "rotate", "--out", str(new), **environment)
    assert ended.code == 0, ended
    assert works(place, new)
    assert "FEDLEDGER_TOKEN" in ended.err


def _interrupting(
    monkeypatch: pytest.MonkeyPatch, step: int
) -> tuple[Callable[[], None], list[int]]:
    """Interrupt at the n-th moment: before or after a call, before or after a file is written."""
    moments = [0]

    def moment() -> None:
        moments[0] += 1
        if moments[0] > step:
            raise KeyboardInterrupt

    def around(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            moment()
            value = original(*arguments, **named)
            moment()
            return value

        return call

    def patch() -> None:
        monkeypatch.setattr(Client, "call", around(Client.call))
        monkeypatch.setattr(rotate, "_save", around(rotate._save))
        monkeypatch.setattr(rotate, "_sync", around(rotate._sync))

    return patch, moments


@pytest.mark.parametrize("whose", ["own", "another's"])
def test_interrupted_anywhere_there_is_one_that_works_and_none_too_many(
    place: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    file = tmp_path / "the.token"
    one = operator(place, file)
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    for step in itertools.count():
        arguments = ["operator", "rotate", "--token-file", str(file)]
        target = file
        if whose == "another's":
            target = tmp_path / f"{step}.token"
            arguments = ["operator", "rotate", one, "--out", str(target), "--revoke-old"]
        with monkeypatch.context() as patched:
            patch, _ = _interrupting(patched, step)
            patch()
            code = run(arguments)
        assert code in {0, 130}
        # Until the new one is in its place the old one works; from then on the new one.
        assert works(place, target if target.exists() else file)
        if code == 130:
            assert run(arguments) == 0
        assert works(place, target)
        assert live(place, one) == [target.read_text().split("_")[1]]
        assert leftovers(tmp_path) == []
        file = target
        if code == 0:
            break
    assert step > 12


# ---- all of it under load -------------------------------------------------------------------


class Load:
    """A few requests at a time, some of which enroll; whatever fails is remembered."""

    def __init__(self, place: Installation, credential: Path) -> None:
        self.failed: list[str] = []
        self.done = {"peers": 0, "enrollments": 0}
        self.issuers: list[str] = []
        self._place = place
        self._credential = credential
        self._end = threading.Event()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        works = (self._peers, self._peers, self._enroll)
        threads = [threading.Thread(target=self._repeat, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._end.set()
            for thread in threads:
                thread.join()

    def enough(self) -> None:
        """Wait until each kind was done a few times more."""
        wanted = {kind: count + ENOUGH for kind, count in self.done.items()}
        wait_until(
            lambda: self.failed or all(self.done[kind] >= count for kind, count in wanted.items()),
            "the load goes on",
            60,
        )
        assert self.failed == []

    def _repeat(self, work: Callable[[Any], None]) -> None:
        try:
            with self._place.http(self._credential) as client:
                client.event_hooks["response"].append(self._look)
                while not self._end.is_set():
                    work(client)
        except Exception as error:  # noqa: BLE001 - shown by the thread that asserts
            self.failed.append(repr(error))

    def _look(self, response: Any) -> None:
        if not response.is_success:
            response.read()
            self.failed.append(f"{response.request.url}: {response.status_code} {response.text}")

    def _peers(self, client: Any) -> None:
        name = f"p-{threading.get_ident()}-{self.done['peers']}"
        client.post("/v1/peers", json={"name": name, "base_url": "https://p.example"})
        client.get("/v1/peers", params={"limit": "5"})
        self.done["peers"] += 1

    def _enroll(self, client: Any) -> None:
        name = f"e-{self.done['enrollments']}"
        peer = client.post("/v1/peers", json={"name": name, "base_url": "https://p.example"}).json()
        client.post(f"/v1/peers/{peer['id']}/activate", json={"verification": "phoned"})
        grant = client.post(
            "/v1/grants",
            json={
                "peer_id": peer["id"],
                "subject_user_id": "user-1",
                "scope": {"resources": ["tasks"], "max_rows_per_query": 10},
                "expires_at": _in_a_month(),
            },
        ).json()
        token = client.post(f"/v1/grants/{grant['id']}/enrollment-tokens", json={}).json()["token"]
        enrolled = client.post("/v1/enrollments", json={"token": token, "csr": csr()}).json()
        certificate = x509.load_pem_x509_certificate(enrolled["certificate"].encode())
        chain = x509.load_pem_x509_certificates(enrolled["chain"].encode())
        certificate.verify_directly_issued_by(chain[0])
        chain[0].verify_directly_issued_by(chain[1])
        self.issuers.append(chain[0].subject.rfc4514_string())
        self.done["enrollments"] += 1


def _in_a_month() -> str:
    from datetime import UTC, datetime, timedelta

    return (datetime.now(UTC) + timedelta(days=30)).isoformat()  # noqa: TID251 - a real service


def test_everything_is_rotated_under_load_and_no_request_fails(
    place: Installation, tmp_path: Path
) -> None:
    load = Load(place, tmp_path / "load.token")
    operator(place, tmp_path / "load.token")
    trusted = place.run("cert", "roots").out
    said = ""
    with load.at_work():
        for _ in range(2):
            for command in (("ca", "rotate"), ("database", "rotate"), ("operator", "rotate")):
                load.enough()
                ended = place.run(*command)
                assert ended.code == 0, ended
                said += ended.out + ended.err
        load.enough()
    assert load.failed == []
    assert len(set(load.issuers)) == 3
    assert place.run("cert", "roots").out == trusted

    # Whatever connects from now on does so with the new passwords.
    with (
        Embedded(place.home) as postgres,
        psycopg.connect(postgres.superuser_dsn, autocommit=True) as connection,
    ):
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE usename = 'fedledger_service'"
        )
    wait_until(lambda: place.run("peer", "list").code == 0, "the service has reconnected", 60)
    place.ok("peer", "register", "--name", "Last", "--base-url", "https://p.example")

    shown = place.ok("ca", "show")["items"]
    wait_until(
        lambda: (
            [one["state"] for one in place.ok("ca", "show")["items"]]
            == ["retired", "retired", "issuing"]
        ),
        "the old ones are retired",
        30,
    )
    assert len({one["folder"] for one in shown}) == 3
    for file in (*place.home.glob("*.token"), *place.home.glob("*.pgpass")):
        assert file.read_text().strip().rpartition(":")[2] not in said
    assert leftovers(place.home) == []


def test_the_way_is_told_for_a_database_of_ones_own(place: Installation) -> None:
    dsn = {"FEDLEDGER_DSN": "host=/nowhere user=app password=hunter2 dbname=x"}
    ended = place.run("database", "rotate", **dsn)
    assert ended.code == 1
    assert 'CREATE ROLE "app_2" LOGIN IN ROLE fedledger_service' in ended.err
    assert "hunter2" not in ended.err

"""What a rotation at a step-ca means for a real server and a ledger that issues with it."""

import json
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from ca.authority import AuthorityRefused
from ca.step_ca import StepCaAuthority
from ca.step_ca_home import StepCaHome
from ca.step_ca_rotation import (
    Passwords,
    rotate_ca_password,
    rotate_provisioner_key,
    rotate_provisioner_password,
)
from support.authority_contract import AuthorityContract
from support.csrs import ec_key, request
from support.step_ca import StepCa, step_ca
from support.waiting import wait_until

pytestmark = pytest.mark.step_ca


class _Orders(AuthorityContract):
    """Borrowed for its orders, not for its tests."""

    __test__ = False


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StepCa]:
    with step_ca(tmp_path) as found:
        yield found


def signs(authority: StepCaAuthority) -> bool:
    """Whether it has an order signed exactly as ordered; False when it is refused with 401."""
    orders = _Orders()
    try:
        orders.assert_as_ordered(authority, orders.order(request(ec_key())))
    except AuthorityRefused as error:
        if error.status != 401:
            raise
        return False
    return True


def opened_signs(home: Path) -> bool:
    """The same for an authority that is opened anew for it."""
    authority = StepCaAuthority.open(home)
    with closing(authority.client):
        return signs(authority)


def reread(server: StepCa) -> None:
    """Let the server read ca.json anew, and wait until it shows what is in there."""
    assert server.process is not None
    document = json.loads(server.config.read_text())
    kid = document["authority"]["provisioners"][0]["key"]["kid"]
    server.process.send_signal(signal.SIGHUP)
    url = f"{server.url}/provisioners"
    wait_until(
        lambda: kid in httpx.get(url, verify=False, trust_env=False).text, "it shows the new key"
    )


def test_the_cas_password(server: StepCa, tmp_path: Path) -> None:
    """The running server notices nothing; the next start takes the new one, and no other."""
    server.connection(tmp_path / "authority")
    old = tmp_path / "old"
    old.write_bytes(server.password_file.read_bytes())
    rotate_ca_password(server.directory, Passwords())
    assert opened_signs(tmp_path / "authority")
    server.restart()
    assert opened_signs(tmp_path / "authority")
    server.password_file = old
    with pytest.raises(AssertionError, match="step-ca: start"):
        server.restart()


def test_the_provisioners_password(server: StepCa, tmp_path: Path) -> None:
    """The server has no part in it, and a ledger that runs needs no restart."""
    running = server.authority(tmp_path / "authority")
    with closing(running.client):
        rotate_provisioner_password(tmp_path / "authority", Passwords())
        assert signs(running)
    assert opened_signs(tmp_path / "authority")


def test_the_ledger_opens_its_key_in_the_middle_of_a_change(server: StepCa, tmp_path: Path) -> None:
    """Killed after the key and before the password: the new one lies beside the old one."""
    home = tmp_path / "authority"
    server.authority(home)
    old = (home / "provisioner.password").read_bytes()
    rotate_provisioner_password(home, Passwords())
    (home / "provisioner.password").rename(home / "provisioner.password.next")
    (home / "provisioner.password").write_bytes(old)
    (home / "provisioner.password").chmod(0o600)
    assert StepCaHome.read(home).kid


def test_the_provisioners_key(server: StepCa, tmp_path: Path) -> None:
    """Once the server has read it, tokens of the old key are worthless, and the new one signs."""
    old, new = tmp_path / "old", tmp_path / "new"
    server.connection(old)
    rotate_provisioner_key(server.directory)
    server.connection(new)
    assert (opened_signs(old), opened_signs(new)) == (True, False)
    reread(server)
    assert (opened_signs(old), opened_signs(new)) == (False, True)
    server.restart()
    assert (opened_signs(old), opened_signs(new)) == (False, True)

"""The containers, without an engine: the rules that the files must keep, and the entry point run.

What the image is built of is tested where the wheel is (tests/acceptance/test_wheel.py).
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import pytest

from api.cli import root
from api.settings import Settings
from ca.step_ca_files import DEVELOPMENT_PASSWORDS
from support.compose import (
    DOCKERFILE,
    ROOT,
    MissingError,
    environment_of,
    instructions,
    rendered,
    required,
)

SCRIPTS = sorted((ROOT / "containers").glob("*.sh"))
ENTRYPOINT = ROOT / "containers" / "entrypoint.sh"
SECRETS = ROOT / "containers" / "secrets"
SHELLCHECK = Path(sys.executable).with_name("shellcheck")
OURS = ("step-ca-init", "ledger-init", "ledger")
PATH = "/usr/local/bin:/usr/bin:/bin"
NOBODY = 65534
DIGEST = "sha256:" + "0123456789abcdef" * 4


def host(name: str, **more: str) -> dict[str, str]:
    """The environment of one host, as its operator fills it in."""
    example = environment_of(ROOT / "containers" / "host.env.example")
    digests = {variable: DIGEST for variable in example if variable.endswith("_DIGEST")}
    return {**example, **digests, "COMPOSE_PROJECT_NAME": name, **more}


@pytest.fixture
def stack() -> dict[str, Any]:
    return rendered(host("a"))


@pytest.fixture
def services(stack: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = stack["services"]
    return found


# ---- one template, two hosts ------------------------------------------------------------------


def test_two_hosts_are_one_template_and_two_environments() -> None:
    one = rendered(host("a", STEP_CA_DNS="ca.a.example", FEDLEDGER_ORIGIN="ledger.a.example"))
    two = rendered(host("b", STEP_CA_DNS="ca.b.example", FEDLEDGER_ORIGIN="ledger.b.example"))
    assert one != two
    assert "--dns=ca.a.example" in one["services"]["step-ca-init"]["command"]
    assert two["services"]["ledger"]["environment"]["FEDLEDGER_ORIGIN"] == "ledger.b.example"
    text = [str(stack).replace(".a.example", ".b.example") for stack in (one, two)]
    assert text[0] == text[1]


@pytest.mark.parametrize("name", sorted(required()))
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_variable_is_named(name: str, value: str | None) -> None:
    environment = host("a")
    if value is None:
        del environment[name]
    else:
        environment[name] = value
    with pytest.raises(MissingError, match=rf"^{name}: ..."):
        rendered(environment)


def test_the_example_names_every_variable() -> None:
    text = (ROOT / "containers" / "host.env.example").read_text()
    named = set(re.findall(r"^#?([A-Z_]+)=", text, re.MULTILINE))
    compose = (ROOT / "docker-compose.federated.yml").read_text()
    used = set(re.findall(r"\$\{([A-Z_]+)", compose))
    assert named == used | {"COMPOSE_PROJECT_NAME"}
    # Filled in as it stands it starts nothing: no digest is guessed.
    with pytest.raises(MissingError, match="_DIGEST"):
        rendered(environment_of(ROOT / "containers" / "host.env.example"))


# ---- the rules ----------------------------------------------------------------------------------


def test_the_services_and_their_profile(services: dict[str, Any]) -> None:
    assert set(services) == {"step-ca", "step-ca-init", "postgres", "ledger-init", "ledger"}
    assert all(one["profiles"] == ["federated"] for one in services.values())


def test_images_are_pinned_by_digest_or_built_here(services: dict[str, Any]) -> None:
    for name, one in services.items():
        if name in OURS:
            assert one["build"]["args"]["PYTHON_DIGEST"] == DIGEST
            assert not one["image"].endswith(":latest")
        else:
            assert re.fullmatch(r"docker\.io/[a-z/-]+@sha256:[0-9a-f]{64}", one["image"]), name
    bases = [rest.split()[0] for word, rest in instructions() if word == "FROM"]
    assert set(bases) == {"docker.io/library/python@${PYTHON_DIGEST}"}
    # No default: a build that names no digest fails.
    assert ("ARG", "PYTHON_DIGEST") in instructions()
    for file in (DOCKERFILE, ROOT / "docker-compose.federated.yml"):
        assert "latest" not in file.read_text()


def test_nobody_is_root_and_nothing_can_be_written_but_volumes(services: dict[str, Any]) -> None:
    for name, one in services.items():
        assert one["user"] == "1000:1000", name
        assert one["read_only"] is True, name
        assert one["cap_drop"] == ["ALL"], name
        assert one["security_opt"] == ["no-new-privileges:true"], name
        assert not one.get("privileged"), name
        assert one.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "step-ca" else [])
    assert [rest for word, rest in instructions() if word == "USER"] == ["1000:1000"]


def test_the_server_sees_its_keys_read_only(services: dict[str, Any]) -> None:
    volumes = services["step-ca"]["volumes"]
    assert sorted(volumes) == [
        "./containers/entrypoint.sh:/entrypoint.sh:ro", "step-ca-db:/home/step/db",
        "step-ca:/home/step:ro",
    ]  # fmt: skip
    # And the ledger never sees the CA's keys, nor the server the provisioner's.
    for name in ("ledger-init", "ledger", "postgres"):
        assert not any(volume.startswith("step-ca") for volume in services[name]["volumes"])
    assert "for-ledger:/run/step-ca:ro" in services["ledger-init"]["volumes"]


def test_ports(services: dict[str, Any]) -> None:
    assert services["step-ca"]["ports"] == ["9000:9000"]
    other = rendered(host("a", STEP_CA_HOST_PORT="9443"))["services"]
    assert other["step-ca"]["ports"] == ["9443:9000"]
    assert services["ledger"]["ports"] == ["127.0.0.1:8440:8440"]
    assert all("ports" not in services[name] for name in ("postgres", "step-ca-init"))


@pytest.mark.parametrize("name", ["step-ca", "postgres", "ledger"])
def test_health(services: dict[str, Any], name: str) -> None:
    check = services[name]["healthcheck"]
    times = {key: check[key] for key in ("interval", "timeout", "retries", "start_period")}
    assert times == {"interval": "10s", "timeout": "5s", "retries": 5, "start_period": "30s"}
    if name == "step-ca":  # as smallstep's own image has it, with what it would else look up
        assert "step ca health" in check["test"][1]
        assert "grep -q '^ok'" in check["test"][1]


def test_each_begins_when_what_it_needs_is_there(services: dict[str, Any]) -> None:
    order = {
        name: {other: how["condition"] for other, how in one.get("depends_on", {}).items()}
        for name, one in services.items()
    }
    assert order == {
        "step-ca-init": {},
        "step-ca": {"step-ca-init": "service_completed_successfully"},
        "postgres": {},
        "ledger-init": {"postgres": "service_healthy", "step-ca": "service_healthy"},
        "ledger": {"ledger-init": "service_completed_successfully"},
    }
    for name in ("step-ca-init", "ledger-init"):
        assert services[name]["restart"] == "no"


@pytest.mark.parametrize("name", OURS)
def test_our_commands_exist_with_their_options(services: dict[str, Any], name: str) -> None:
    program, *words = services[name]["command"]
    assert program == "fedledger"
    command: click.Command = root
    while words and not words[0].startswith(("-", "/")):
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), words.pop(0))
        assert found is not None
        command = found
    command.make_context(name, words)  # parses them, runs nothing


def test_the_settings_of_ours_exist(services: dict[str, Any]) -> None:
    known = {f"FEDLEDGER_{name.upper()}" for name in Settings.model_fields}
    for name in ("ledger-init", "ledger"):
        given = {key for key in services[name]["environment"] if key.startswith("FEDLEDGER_")}
        assert given <= known
    assert "FEDLEDGER_OWNER_DSN" not in services["ledger"]["environment"]


# ---- secrets --------------------------------------------------------------------------------------


def test_each_required_secret_is_mounted_and_has_an_example(stack: dict[str, Any]) -> None:
    examples = {file.name.removesuffix(".example") for file in SECRETS.glob("*.example")}
    assert set(stack["secrets"]) == examples
    for name, one in stack["services"].items():
        mounted = {secret["source"] for secret in one["secrets"]}
        assert mounted <= examples
        assert all((s["uid"], s["mode"]) == ("1000", 0o400) for s in one["secrets"]), name
        wanted = one["environment"].get("REQUIRED_SECRETS")
        # PostgreSQL's image has an entry point of its own, which looks for its own.
        assert mounted == set(wanted.split()) if wanted else name == "postgres"
        for path in re.findall(r"/run/secrets/([\w-]+)", str(one)):
            assert path in mounted, (name, path)


def test_secrets_stand_in_one_folder_that_can_be_chosen(stack: dict[str, Any]) -> None:
    files = {one["file"] for one in stack["secrets"].values()}
    assert all(file.startswith("./containers/secrets/") for file in files)
    elsewhere = rendered(host("a", SECRETS_DIR="/etc/fedledger/secrets"))
    assert elsewhere["secrets"]["step-ca-password"] == {
        "file": "/etc/fedledger/secrets/step-ca-password"
    }


@pytest.mark.parametrize("name", ["step-ca-password", "pgpass-fedledger_owner", "a.pem"])
def test_no_secret_can_be_committed(name: str) -> None:
    ignored = _is_ignored(f"containers/secrets/{name}")
    assert ignored is not False
    assert _is_ignored("containers/secrets/step-ca-password.example") is not True
    assert _is_ignored("containers/a.env") is not False


def _is_ignored(path: str) -> bool | None:
    """What git says; None in a copy of the tree that is no checkout."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        # Then the file itself, as far as its own words go.
        lines = (ROOT / ".gitignore").read_text().splitlines()
        assert {"containers/secrets/*", "!containers/secrets/*.example"} <= set(lines)
        return None
    trusted = ("-c", f"safe.directory={ROOT}")
    done = subprocess.run([git, *trusted, "check-ignore", "-q", path], cwd=ROOT, check=False)
    return done.returncode == 0


def test_doctor_knows_the_development_passwords() -> None:
    shipped = {
        (SECRETS / f"{name}.example").read_bytes().rstrip()
        for name in ("step-ca-password", "provisioner-password")
    }
    assert shipped == DEVELOPMENT_PASSWORDS
    assert len(shipped) == 2  # the CA's and the provisioner's differ


# ---- the scripts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_posix_and_shellcheck_finds_nothing(script: Path) -> None:
    assert script.read_text().startswith("#!/bin/sh\n")
    assert os.access(script, os.X_OK)
    done = subprocess.run(
        [SHELLCHECK, "--shell=dash", "--severity=style", script],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    dash = shutil.which("dash") or "/bin/sh"
    assert subprocess.run([dash, "-n", script], check=False).returncode == 0


def enter(
    secrets: Path, *command: str, required: str = "one two"
) -> subprocess.CompletedProcess[str]:
    """Run the entry point with dash, as the container does."""
    environment = {
        "PATH": PATH, "SECRETS_DIRECTORY": str(secrets), "REQUIRED_SECRETS": required,
    }  # fmt: skip
    return subprocess.run(
        [shutil.which("dash") or "/bin/sh", ENTRYPOINT, *command], env=environment,
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"the secret {name}\n")
    return tmp_path


def test_the_entry_point_becomes_the_command(secrets: Path, tmp_path: Path) -> None:
    stub = tmp_path / "stub"
    stub.write_text('#!/bin/sh\necho "$$ $PPID"; printf "%s|" "$@"; exit 7\n')
    stub.chmod(0o755)
    with subprocess.Popen(
        ["/bin/sh", ENTRYPOINT, stub, "a b", "", "*"], stdout=subprocess.PIPE, text=True,
        env={"PATH": PATH, "SECRETS_DIRECTORY": str(secrets),
             "REQUIRED_SECRETS": "one two"},
    ) as entered:  # fmt: skip
        out, _ = entered.communicate()
        # The same process: signals reach the server, and its exit code is the container's.
        assert out.splitlines()[0] == f"{entered.pid} {os.getpid()}"
        assert out.splitlines()[1] == "a b||*|"
        assert entered.returncode == 7


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda file: file.unlink(), "is missing"),
        (lambda file: file.write_text(""), "is empty"),
        (lambda file: (file.unlink(), file.mkdir()), "is missing"),
    ],
    ids=["missing", "empty", "a folder"],
)
def test_without_a_secret_it_says_which_and_runs_nothing(
    secrets: Path, spoil: Any, said: str
) -> None:
    spoil(secrets / "two")
    done = enter(secrets, "sh", "-c", "echo ran")
    assert done.returncode == 78
    assert done.stdout == ""
    assert f"the secret two {said}: {secrets}/two" in done.stderr
    assert "containers/secrets/two.example" in done.stderr
    assert "the secret one" not in done.stderr


def test_a_secret_that_cannot_be_read() -> None:
    """As somebody who is not root, who reads everything."""
    place = Path(tempfile.mkdtemp(prefix="fedledger-secrets-", dir="/tmp"))
    place.chmod(0o755)
    try:
        shutil.copy(ENTRYPOINT, place)
        (place / "one").write_text("x")
        (place / "one").chmod(0)
        anybody = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        done = subprocess.run(
            ["/bin/sh", place / ENTRYPOINT.name, "true"], capture_output=True, text=True,
            env={"PATH": PATH, "SECRETS_DIRECTORY": str(place), "REQUIRED_SECRETS": "one"},
            check=False, **anybody,
        )  # fmt: skip
        assert "the secret one cannot be read" in done.stderr
        assert done.returncode == 78
    finally:
        shutil.rmtree(place)


def test_no_secret_is_ever_printed(secrets: Path) -> None:
    (secrets / "two").unlink()
    done = enter(secrets, "true")
    assert "the secret one\n" not in done.stdout + done.stderr
    assert enter(secrets, "true", required="one").stderr == ""


def test_without_a_command_it_says_so(secrets: Path) -> None:
    assert enter(secrets, required="").returncode == 64


def test_the_image_starts_it_and_serves_by_default() -> None:
    found = dict(instructions())
    assert found["ENTRYPOINT"] == '["/usr/local/bin/entrypoint.sh"]'
    assert found["CMD"] == '["fedledger", "serve"]'
    copied = [shlex.split(rest) for word, rest in instructions() if word == "COPY"]
    assert ["--chmod=0755", "containers/entrypoint.sh", "/usr/local/bin/entrypoint.sh"] in copied


def test_what_the_image_is_made_of_reaches_the_builder() -> None:
    """Everything that is copied is let through, and secrets are not."""
    let_through = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    copied = {
        source
        for word, rest in instructions()
        if word == "COPY" and "--from=build" not in rest
        for source in shlex.split(rest)[:-1]
        if not source.startswith("--")
    }
    assert copied == let_through
    assert all((ROOT / source).exists() for source in copied)

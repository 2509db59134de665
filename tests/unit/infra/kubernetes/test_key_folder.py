"""Keys made off the cluster: each owner gets his own, and a broker starts on what the manifests and Secrets give it."""

import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

from bulkhead_infra.identity import keys
from bulkhead_infra.identity.keys import KeyFileError
from bulkhead_infra.kubernetes import key_folder, objects, overlays
from bulkhead_infra.kubernetes.__main__ import main
from bulkhead_infra.nats.server import find_nats_server
from bulkhead_infra.services import EVERY_SERVICE
from tests.paths import ROOT


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    key_folder.ensure(folder, "dev")
    return folder


def _all(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_second_time_changes_nothing_and_remembers_the_overlay(made: Path) -> None:
    before = _all(made)
    assert key_folder.ensure(made) == "dev"
    assert _all(made) == before
    assert {stat.S_IMODE((made / name).stat().st_mode) for name in before} == {0o600}


def test_keys_of_one_overlay_are_not_for_another(made: Path) -> None:
    with pytest.raises(KeyFileError, match=r"made for the overlay dev.*another folder for production"):
        key_folder.ensure(made, "production")


def test_each_secret_has_its_owners_files_and_nobody_else_has_them(made: Path) -> None:
    found = {one["metadata"]["name"]: one["stringData"] for one in key_folder.secrets(made)}
    assert set(found) == {f"bulkhead-{objects.name_of(owner)}" for owner in overlays.SECRET_OWNERS} | {
        objects.TLS_SECRET
    }
    for service in EVERY_SERVICE:
        own = f"bulkhead-{objects.name_of(service)}"
        # Services show tokens; the one that lets them in has an nkey, and the keys that it lets them in by.
        more = {"identity.nkey", "identity.issuer", "identity.xkey"} if service == "identity" else set()
        private = {f"{service}.sign", *more}
        assert {*private, "public.json"} <= set(found[own]) and f"{service}.nkey" not in set(found[own]) - more
        for text in ((made / "all" / file).read_text() for file in private):
            assert [name for name, files in found.items() if text in files.values()] == [own]
    text = str(found)
    assert (made / "all" / "tls" / "ca.key").read_text() not in text and "credentials" not in text


def test_cert_manager_makes_the_certificate_in_our_place(made: Path) -> None:
    names = {one["metadata"]["name"] for one in key_folder.secrets(made, certificate=False)}
    assert objects.TLS_SECRET not in names and len(names) == len(overlays.SECRET_OWNERS)


@pytest.mark.parametrize(
    ("overlay", "address"),
    [("dev", "redis://:{}@redis:6379/0"), ("production", "redis+sentinel://:{}@sentinel:26379/mesh")],
)
def test_budget_is_told_where_redis_is(overlay: str, address: str, tmp_path: Path) -> None:
    key_folder.ensure(tmp_path, overlay)
    password = (tmp_path / "all" / "redis.password").read_text().strip()
    assert (tmp_path / "budget" / "redis_url").read_text().strip() == address.format(password)


@pytest.mark.parametrize("component", ["nats", "single-broker"])
def test_the_broker_accepts_its_configuration(component: str, made: Path, tmp_path: Path) -> None:
    for file in (overlays.CONF_FILE, overlays.ACCOUNTS_FILE):
        source = ROOT / objects.FOLDER / "components" / component / file
        other = ROOT / objects.FOLDER / "components" / "nats" / file
        text = (source if source.is_file() else other).read_text()
        (tmp_path / file).write_text(text.replace(objects.IDENTITY, str(tmp_path)).replace(objects.DATA, str(tmp_path)))
    for one in key_folder.secrets(made):
        if one["metadata"]["name"] == "bulkhead-nats":
            for file, text in one["stringData"].items():
                (tmp_path / file).write_text(text)
    for file in ("ca.pem", "broker.pem", "broker.key"):
        shutil.copy(made / "all" / "tls" / file, tmp_path / file)
    command = [str(find_nats_server()), "-t", "-c", str(tmp_path / overlays.CONF_FILE)]
    done = subprocess.run(
        command, env={"BULKHEAD_BROKER": "nats-0"}, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / overlays.CONF_FILE).read_text()
    assert "sync_interval: always" in text and ("routes:" in text) == (component == "nats")


def test_the_accounts_name_each_static_key_by_a_variable_and_hold_none(made: Path) -> None:
    text = (ROOT / objects.FOLDER / "components" / "nats" / overlays.ACCOUNTS_FILE).read_text()
    variables = (made / "nats" / overlays.NKEYS_FILE).read_text()
    assert f"NKEY_PROVISIONER: {keys.nkey_public(made / 'all', 'provisioner')}" in variables
    assert "$NKEY_PROVISIONER" in text and "nkey: U" not in text


def test_the_commands_print_secrets_and_say_what_is_missing(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["secrets", str(made)]) == 0
    printed = list(yaml.safe_load_all(capsys.readouterr().out))
    assert {one["metadata"]["namespace"] for one in printed} == {objects.NAMESPACE}
    assert printed == list(key_folder.secrets(made))
    assert main(["secrets", str(tmp_path)]) == 1
    assert "make them first, with `python -m bulkhead_infra.kubernetes keys" in capsys.readouterr().err


def test_secrets_are_for_the_one_namespace_that_overlays_know(made: Path) -> None:
    """Subjects of roles, what identity lets in and names of servers are of `bulkhead`."""
    with pytest.raises(SystemExit, match="2"):
        main(["secrets", str(made), "--namespace", "mesh"])

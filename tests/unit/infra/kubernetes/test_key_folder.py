"""Keys made off the cluster: each owner gets his own, and a broker starts on what the manifests and Secrets give it."""

import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

from bulkhead_infra.identity import keys
from bulkhead_infra.identity.keys import KeyFileError
from bulkhead_infra.kubernetes import chart, key_folder
from bulkhead_infra.kubernetes.__main__ import main
from bulkhead_infra.nats.server import find_nats_server
from bulkhead_infra.services import EVERY_SERVICE
from tests.paths import ROOT
from tests.unit.infra.kubernetes.rendered import example, named, render_chart

OWN = "publishers:\n  pub_shop: {tenant: demo, person: shop}\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    key_folder.ensure_key_folder(folder, "single")
    return folder


def _all(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_second_time_changes_nothing_and_remembers_the_redis(made: Path) -> None:
    before = _all(made)
    assert key_folder.ensure_key_folder(made) == "single"
    assert _all(made) == before
    assert {stat.S_IMODE((made / name).stat().st_mode) for name in before} == {0o600}


def test_keys_of_one_mesh_are_not_for_another(made: Path) -> None:
    with pytest.raises(KeyFileError, match=r"made for a mesh with `--redis single`.*another folder for"):
        key_folder.ensure_key_folder(made, "sentinel")


def test_each_secret_has_its_owners_files_and_nobody_else_has_them(made: Path) -> None:
    contents = {secret["metadata"]["name"]: secret["stringData"] for secret in key_folder.render_secrets(made)}
    owners = {f"bulkhead-{chart.kube_name(owner)}" for owner in key_folder.SECRET_OWNERS}
    assert set(contents) == owners | {key_folder.TLS_SECRET}
    for service in EVERY_SERVICE:
        own = f"bulkhead-{chart.kube_name(service)}"
        # Services show tokens; the one that lets them in has an nkey, and the keys that it lets them in by.
        more = {"identity.nkey", "identity.issuer", "identity.xkey"} if service == "identity" else set()
        private = {f"{service}.sign", *more}
        assert {*private, "public.json"} <= set(contents[own]) and f"{service}.nkey" not in set(contents[own]) - more
        for text in ((made / "all" / file).read_text() for file in private):
            assert [name for name, files in contents.items() if text in files.values()] == [own]
    text = str(contents)
    assert (made / "all" / "tls" / "ca.key").read_text() not in text and "credentials" not in text


def test_cert_manager_makes_the_certificate_in_our_place(made: Path) -> None:
    names = {secret["metadata"]["name"] for secret in key_folder.render_secrets(made, certificate=False)}
    assert key_folder.TLS_SECRET not in names and len(names) == len(key_folder.SECRET_OWNERS)


@pytest.mark.parametrize(
    ("redis", "address"), [("single", "redis://:{}@redis:6379/0"), ("", "redis+sentinel://:{}@sentinel:26379/mesh")]
)
def test_budget_is_told_where_redis_is(redis: str, address: str, tmp_path: Path) -> None:
    key_folder.ensure_key_folder(tmp_path, redis)
    password = (tmp_path / "all" / "redis.password").read_text().strip()
    assert (tmp_path / "budget" / "redis_url").read_text().strip() == address.format(password)


@pytest.mark.parametrize("replicas", [1, 3])
def test_the_broker_accepts_its_configuration(replicas: int, made: Path, tmp_path: Path) -> None:
    values = example("dev") | {"nats": {"replicas": replicas}}
    for file, text in named(render_chart(values), "ConfigMap", "bulkhead-broker")["data"].items():
        (tmp_path / file).write_text(text.replace(chart.IDENTITY, str(tmp_path)).replace(chart.DATA, str(tmp_path)))
    for secret in key_folder.render_secrets(made):
        if secret["metadata"]["name"] == "bulkhead-nats":
            for file, text in secret["stringData"].items():
                (tmp_path / file).write_text(text)
    for file in ("ca.pem", "broker.pem", "broker.key"):
        shutil.copy(made / "all" / "tls" / file, tmp_path / file)
    command = [str(find_nats_server()), "-t", "-c", str(tmp_path / "nats-server.conf")]
    done = subprocess.run(
        command, env={"BULKHEAD_BROKER": "nats-0"}, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "nats-server.conf").read_text()
    assert "sync_interval: always" in text and ("routes:" in text) == (replicas > 1)


def test_the_accounts_name_each_static_key_by_a_variable_and_hold_none(made: Path) -> None:
    text = (ROOT / chart.CHART / "files/accounts.conf").read_text()
    variables = (made / "nats" / chart.NKEYS_FILE).read_text()
    assert f"NKEY_PROVISIONER: {keys.nkey_public(made / 'all', 'provisioner')}" in variables
    assert "$NKEY_PROVISIONER" in text and "nkey: U" not in text


def test_the_commands_print_secrets_and_say_what_is_missing(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["secrets", str(made)]) == 0
    printed = list(yaml.safe_load_all(capsys.readouterr().out))
    assert printed == list(key_folder.render_secrets(made))
    assert main(["secrets", str(tmp_path)]) == 1
    assert "make them first, with `python -m bulkhead_infra.kubernetes keys" in capsys.readouterr().err


@pytest.mark.slow
def test_programs_of_ones_own_get_keys_and_the_chart_gets_their_accounts(tmp_path: Path) -> None:
    identities, folder = tmp_path / "mine.yaml", tmp_path / "keys"
    identities.write_text(OWN)
    for arguments in (["--redis", "single", "--identities", str(identities)], []):
        assert main(["keys", str(folder), *arguments]) == 0, "a second time remembers them"
        assert (folder / "all" / "pub_shop.nkey").exists()
        assert "NKEY_PUB_SHOP:" in (folder / "nats" / chart.NKEYS_FILE).read_text()
        assert "pub_shop" in (folder / "gateway" / "publishers.json").read_text()
    objects = render_chart(example("dev") | yaml.safe_load((folder / key_folder.VALUES_FILE).read_text()))
    assert "$NKEY_PUB_SHOP" in named(objects, "ConfigMap", "bulkhead-broker")["data"]["accounts.conf"]
    assert named(objects, "ConfigMap", "bulkhead-streams")["data"]["BULKHEAD_IDENTITIES_YAML"] == OWN
    identities.write_text("publishers:\n  pub_demo: {tenant: demo, person: other}\n")
    assert main(["keys", str(folder), "--identities", str(identities)]) == 1, "it comes with the mesh"

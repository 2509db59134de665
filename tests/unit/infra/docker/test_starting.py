"""What containers run first: the provisioner over plain folders, the starts of broker and Redis."""

import hashlib
import json
import socket
import stat
from pathlib import Path

import pytest

from bulkhead.runtime.process import container_start
from bulkhead_infra.docker import nats_container, provisioner, redis_container
from bulkhead_infra.docker.image_contents import SERVICES
from bulkhead_infra.identity import callers, keys
from bulkhead_infra.nats.stream_sizes import GIB


def _all(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_everybody_gets_his_own_and_a_second_time_changes_nothing(volumes: Path) -> None:
    assert provisioner.main(["keys"]) == 0
    found = _all(volumes)
    for service in SERVICES:
        own = {name.partition("/")[2] for name in found if name.startswith(f"{service}/")}
        assert {f"{service}.nkey", f"{service}.sign", "public.json", "ca.pem"} <= own
        assert not [name for name in own if name.endswith((".nkey", ".sign")) and not name.startswith(f"{service}.")]
    assert b"ca.key" not in b"".join(name.encode() for name in found if not name.startswith("all/"))
    private = [path for path in volumes.rglob("*") if path.suffix in (".nkey", ".sign", ".key")]
    assert private and all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in private)
    assert provisioner.main(["keys"]) == 0
    assert _all(volumes) == found


def test_redis_and_budget_share_a_password_and_nobody_else_has_it(volumes: Path) -> None:
    provisioner.main(["keys"])
    password = (volumes / "all" / "redis.password").read_text()
    having = {name for name, content in _all(volumes).items() if password.encode() in content}
    assert having == {"all/redis.password", "budget/redis_url", "redis/redis.conf"}


def test_a_rotated_key_is_another_one_and_the_broker_is_told(volumes: Path) -> None:
    provisioner.main(["keys"])
    before, public = _all(volumes), keys.nkey_public(volumes / "all", "worker")
    assert provisioner.main(["rotate", "worker"]) == 0
    after = _all(volumes)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"all/worker.nkey", "worker/worker.nkey", "nats/accounts.conf"}
    accounts = after["nats/accounts.conf"].decode()
    assert public not in accounts and keys.nkey_public(volumes / "all", "worker") in accounts


def test_a_providers_key_stays_when_keys_are_made_again(volumes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provisioner.main(["keys"])
    provisioner.store_provider_key("sk-of-a-person")
    provisioner.main(["keys"])
    assert (volumes / "model_gateway" / "openai_api_key").read_text() == "sk-of-a-person"


@pytest.mark.parametrize(
    "arguments, environ, says",
    [
        (["rotate", "nobody"], {}, "no identity nobody; there are"),
        (["keys"], {"BULKHEAD_SHARDS_WORKER": "99"}, "BULKHEAD_SHARDS_WORKER is '99'; write a number from 1 to 32"),
        (["keys"], {"BULKHEAD_DURABILITY": "none"}, "it is power or process"),
        (["credentials"], {}, "`keys` must have run before"),
    ],
)
def test_a_mistake_is_told(
    volumes: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    environ: dict[str, str],
    says: str,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert provisioner.main(arguments) == 1
    assert says in capsys.readouterr().err


def test_a_broker_keeps_room_for_streams_that_are_to_become_smaller(
    volumes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is told less than its streams may take does not start them: the provisioner could not change them."""
    found = []
    for given in ("", "900", "400", ""):
        monkeypatch.setenv("BULKHEAD_STORE_GIB", given)
        assert provisioner.main(["keys"]) == 0
        text = (volumes / "nats" / "nats-server.conf").read_text()
        found.append(int(text.partition("max_file_store: ")[2].split()[0]) // GIB)
    assert found[1:] == [945, 945, 945] and found[0] < 900, "with room for bounds that grow before others shrink"
    assert provisioner.stream_layout().store_gib == 0


def test_one_more_person_gets_a_key_that_stays_and_only_its_digest_is_kept(
    volumes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert provisioner.main(["keys"]) == 0
    capsys.readouterr()
    assert provisioner.main(["caller", "acme", "ann", "submitter"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert provisioner.main(["keys"]) == 0
    for folder in ("operator", "gateway"):
        text = (volumes / folder / "api_keys.json").read_text()
        added = json.loads(text)["keys"][-1]
        assert added["sha256"] == hashlib.sha256(made["api_key"].encode()).hexdigest()
        assert (added["tenant"], added["person"], added["role"]) == ("acme", "ann", "submitter")
        assert made["api_key"] not in text and len(json.loads(text)["keys"]) == len(callers.ROLES) + 2


@pytest.mark.parametrize(
    "words, says",
    [
        (("acme", "ann", "king"), "no role king; there are submitter, "),
        (("acme", "a/n", "submitter"), "'a/n' is no name"),
    ],
)
def test_a_key_for_nobody_is_not_made(
    volumes: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], says: str
) -> None:
    assert provisioner.main(["keys"]) == 0
    before = _all(volumes)
    assert provisioner.main(["caller", *words]) == 1
    assert says in capsys.readouterr().err and _all(volumes) == before


def test_credentials_are_printed_as_json(volumes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    provisioner.main(["keys"])
    capsys.readouterr()
    provisioner.main(["credentials"])
    assert set(json.loads(capsys.readouterr().out)) == {*callers.ROLES, "agent"}


def test_every_replica_has_a_name_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BULKHEAD_MODULE", "tests.unit.infra.docker.says_its_instance")
    monkeypatch.delenv("BULKHEAD_INSTANCE", raising=False)
    monkeypatch.setattr(socket, "gethostname", lambda: "0123456789ab")
    container_start.main()
    assert capsys.readouterr().out == "0123456789ab __main__\n"


def test_without_a_module_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BULKHEAD_MODULE", raising=False)
    with pytest.raises(SystemExit, match="BULKHEAD_MODULE is not set"):
        container_start.main()


def test_redis_starts_empty_when_a_power_cut_tore_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "appendonlydir"
    folder.mkdir()
    (folder / "appendonly.aof.1.incr.aof").touch()
    (folder / "appendonly.aof.manifest").write_bytes(b"file appendonly")
    assert redis_container.torn_files(tmp_path) == []
    (folder / "appendonly.aof.manifest").write_bytes(b"\0" * 64)
    assert redis_container.torn_files(tmp_path) == [folder / "appendonly.aof.manifest"]
    redis_container.empty_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_broker_and_redis_say_what_they_lack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(nats_container, "CONFIGURATION", tmp_path / "nats-server.conf")
    monkeypatch.setattr(nats_container.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(redis_container, "CONFIGURATION", tmp_path / "redis.conf")
    assert nats_container.main() == 2 and redis_container.main([]) == 2
    said = capsys.readouterr().err
    assert "nats-server.conf cannot be read" in said and "redis.conf cannot be read" in said


@pytest.mark.slow
@pytest.mark.parametrize("mounted", [True, False], ids=["a file", "its text"])
def test_programs_of_ones_own_get_keys_accounts_and_streams(
    volumes: Path, mounted: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = volumes / "identities.yaml"
    monkeypatch.setattr(provisioner, "IDENTITIES_FILE", file)

    def name_programs(text: str) -> None:
        if mounted:
            file.write_text(text)
        else:
            monkeypatch.setenv("BULKHEAD_IDENTITIES_YAML", text)

    name_programs("# none yet")
    assert provisioner.main(["keys"]) == 0 and "pub_shop" not in provisioner.stream_layout().publishers
    name_programs("publishers:\n  pub_shop: {tenant: demo, person: shop}\n")
    assert provisioner.main(["keys"]) == 0 and provisioner.main(["rotate", "pub_shop"]) == 0
    assert (volumes / "all" / "pub_shop.nkey").exists() and "pub_shop" in provisioner.stream_layout().publishers
    assert "pub_shop" in (volumes / "nats" / "accounts.conf").read_text()
    assert "pub_shop" in (volumes / "gateway" / "publishers.json").read_text()
    name_programs("services: {}")
    assert provisioner.main(["keys"]) == 1 and "services" in capsys.readouterr().err

"""docker-compose.cluster.yml and what its containers are told: keys, certificates, configurations, who is master."""

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from cryptography import x509

from bulkhead_cli.operate import doctor_checks
from bulkhead_contracts import catalog
from bulkhead_infra.docker import probes, provisioner, redis_container
from bulkhead_infra.docker.image_contents import ROOT
from bulkhead_infra.identity.policy import IdentityPolicyError
from bulkhead_infra.nats.server import find_nats_server
from bulkhead_infra.render import cluster, compose
from tests.redis_server import EphemeralRedis
from tests.redis_server import server_binary as redis_binary
from tests.unit.infra.docker.test_probes import NOT_YET, WELL, answering

ADDED: dict[str, Any] = yaml.safe_load(cluster.files()[cluster.FILE])
BASE: dict[str, Any] = yaml.safe_load(compose.files()[compose.FILE])
NEW = {name: one for name, one in ADDED["services"].items() if name not in BASE["services"]}
BROKERS = ",".join(cluster.BROKERS)


def test_the_committed_file_is_the_rendered_one_and_what_the_specification_allows() -> None:
    assert (ROOT / cluster.FILE).read_text() == cluster.files()[cluster.FILE]
    schema = json.loads(Path(__file__).with_name("compose-spec.json").read_text())
    assert [one.message for one in jsonschema_rs.validator_for(schema).iter_errors(ADDED)] == []


@pytest.mark.parametrize("name", NEW)
def test_a_container_that_is_added_may_do_as_little_as_the_one_that_it_is_like(name: str) -> None:
    one, like = NEW[name], BASE["services"]["nats" if name.startswith("nats") else "redis"]
    for key in ("read_only", "user", "cap_drop", "security_opt", "profiles", "pids_limit", "cpus", "networks", "image"):
        assert one[key] == like[key], key
    keys = [one for one in one["volumes"] if one.startswith("keys_")]
    assert keys == [one for one in like["volumes"] if one.startswith("keys_")] and keys[0].endswith(":ro")
    assert "ports" not in one


def test_every_service_names_all_brokers_and_streams_have_as_many_copies() -> None:
    url = ",".join(f"tls://{name}:4222" for name in cluster.BROKERS)
    for name in (*catalog.SERVICES, "upkeep", "provision-streams"):
        assert ADDED["services"][name]["environment"]["BULKHEAD_NATS_URL"] == url
    for name in ("upkeep", "provision-streams"):
        assert ADDED["services"][name]["environment"]["BULKHEAD_REPLICAS"] == str(len(cluster.BROKERS))


def test_brokers_of_a_cluster_find_each_other_and_show_a_certificate_for_every_name(
    volumes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BULKHEAD_BROKERS", BROKERS)
    monkeypatch.setenv("BULKHEAD_SENTINELS", "sentinel:26379/mesh")
    assert provisioner.main(["keys"]) == 0
    certificate = x509.load_pem_x509_certificate((volumes / "nats" / "broker.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(cluster.BROKERS) <= {str(one.value) for one in names}
    password = (volumes / "all" / "redis.password").read_text()
    assert (volumes / "budget" / "redis_url").read_text() == f"redis+sentinel://:{password}@sentinel:26379/mesh\n"
    # The server takes it, under the name that the environment gives: paths are those of a container.
    conf = volumes / "nats" / "nats-server.conf"
    conf.write_text(conf.read_text().replace("/bulkhead/identity", str(volumes / "nats")))
    environ = {**os.environ, "BULKHEAD_BROKER": "nats-2"}
    done = subprocess.run(
        [find_nats_server(), "-t", "-c", str(conf)], env=environ, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert all(f'"tls://{name}:6222"' in conf.read_text() for name in cluster.BROKERS)


@pytest.mark.parametrize("before, now", [("", BROKERS), (BROKERS, "")])
def test_streams_are_not_left_behind_unsaid_when_the_brokers_become_others(
    volumes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], before: str, now: str
) -> None:
    monkeypatch.setenv("BULKHEAD_BROKERS", before)
    assert provisioner.main(["keys"]) == 0 == provisioner.main(["keys"])
    monkeypatch.setenv("BULKHEAD_BROKERS", now)
    assert provisioner.main(["keys"]) == 1
    assert "its streams would not come along" in capsys.readouterr().err
    # So it is for a mesh of before there were clusters.
    (volumes / "all" / "brokers").unlink()
    assert provisioner.main(["keys"]) == (1 if now else 0)


@pytest.mark.parametrize("names", ["nats", "nats,nats-2", "nats,nats-2,nats-2", "nats,na ts,nats-3"])
def test_what_is_no_cluster_is_refused(volumes: Path, monkeypatch: pytest.MonkeyPatch, names: str) -> None:
    monkeypatch.setenv("BULKHEAD_BROKERS", names)
    assert provisioner.main(["keys"]) == 1
    monkeypatch.setenv("BULKHEAD_REPLICAS", "2")
    with pytest.raises(IdentityPolicyError, match="write 1, 3 or 5"):
        provisioner.stream_layout()


def test_a_broker_that_only_waits_for_the_others_is_not_ended(tmp_path: Path) -> None:
    with answering() as (url, answers):

        def look(*come: bytes) -> tuple[bool, str]:
            answers[:] = come
            return probes.probe_broker(url, str(tmp_path), pid=-1, in_cluster=True)

        assert look(WELL)[0]
        for _ in range(2):
            assert look(NOT_YET, WELL) == (False, "unavailable") and not (tmp_path / "unhealthy-since").exists()
        # A disk is another matter.
        assert not look(NOT_YET, NOT_YET)[0] and (tmp_path / "unhealthy-since").exists()


@pytest.mark.parametrize(
    "named, name, follows",
    [("", "redis", ""), ("", "redis-2", "redis"), ("10.0.0.2", "redis", "10.0.0.2"), ("10.0.0.1", "redis-2", "")],
)
def test_who_comes_back_follows_the_one_that_the_sentinels_name(
    monkeypatch: pytest.MonkeyPatch, named: str, name: str, follows: str
) -> None:
    """This one is 10.0.0.1."""
    monkeypatch.setattr(redis_container, "named_master", lambda password: named)
    monkeypatch.setattr(redis_container, "resolve_addresses", lambda host: ["10.0.0.1"])
    assert redis_container.master_for(name, "secret") == follows


def test_in_kubernetes_the_master_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_container, "named_master", lambda password: "redis-1.redis")
    monkeypatch.setattr(redis_container, "resolve_addresses", lambda host: ["10.0.0.1"])
    assert redis_container.master_for("redis-1.redis", "secret") == ""
    assert redis_container.master_for("redis-0.redis", "secret") == "redis-1.redis"


@pytest.mark.parametrize(("host", "master"), [("", "127.0.0.1"), ("sentinel-0", "localhost")])
def test_a_sentinel_names_the_master_to_who_has_the_password(
    host: str, master: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a host name of its own it knows the master by name, too."""
    server, watching = EphemeralRedis(tmp_path, "--requirepass", "secret"), tmp_path / "sentinel.conf"
    sentinel = EphemeralRedis(tmp_path)
    text = redis_container.sentinel_configuration(master, "secret", host).replace("dir /tmp", f"dir {tmp_path}")
    watching.write_text(
        text.replace(f"port {redis_container.SENTINEL_PORT}", f"port {sentinel.port}").replace(
            f"{master} 6379", f"{master} {server.port}"
        )
    )
    monkeypatch.setattr(redis_container, "SENTINEL_PORT", sentinel.port)
    monkeypatch.setattr(redis_container, "resolve_addresses", lambda host: ["127.0.0.1"])
    with subprocess.Popen([redis_binary(), str(watching), "--sentinel"], stdout=subprocess.DEVNULL) as process:
        try:
            configuration = tmp_path / "redis.conf"
            configuration.write_text("requirepass secret\n")
            place = f"127.0.0.1:{sentinel.port}"
            deadline = time.monotonic() + 20
            while not probes.probe_redis(place, str(configuration))[0] and time.monotonic() < deadline:
                assert process.poll() is None, "the sentinel has ended"
                time.sleep(0.02)
            assert redis_container.named_master("secret") == master
            assert redis_container.named_master("another") == ""
        finally:
            process.kill()
    assert redis_container.named_master("secret") == ""


@pytest.mark.parametrize("arguments", [["server"], ["server", "redis-9"], ["master"]])
def test_what_redis_is_to_be_is_checked(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert redis_container.main(arguments) == 2 and "server NAME" in capsys.readouterr().err


@pytest.mark.parametrize(
    "states, level, says",
    [
        ({"a": "running", "b": "running", "c": "running"}, "ok", "3 of 3 brokers run"),
        ({"a": "running", "b": "gone", "c": "running"}, "warning", "2 of 3 brokers run; b (gone) away"),
        (
            {"a": "running", "b": "exited", "c": "gone"},
            "problem",
            "1 of 3 brokers run; b (exited), c (gone) away: no message is accepted",
        ),
    ],
)
def test_doctor_counts_the_brokers(states: dict[str, str], level: str, says: str) -> None:
    found = doctor_checks.check_cluster({"brokers": states})
    assert found is not None and found.level == level and found.detail.startswith(says)
    assert doctor_checks.check_cluster({}) is None and bool(found.todo) == (level != "ok")

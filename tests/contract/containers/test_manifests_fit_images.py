"""Each container in the manifests fits its image; and each check of that can fail."""

from pathlib import Path

import pytest

from tests.contract.containers.installations import broken, container, spec
from tests.contract.containers.pods import ManifestError, Object
from tests.unit.infra.kubernetes.rendered import INSTALLATIONS


@pytest.mark.parametrize("name", INSTALLATIONS)
@pytest.mark.slow
def test_every_container_fits_its_image(name: str, tmp_path: Path) -> None:
    assert broken(name, tmp_path) == []


def _variable(found: list[Object], name: str, variable: str) -> Object:
    return next(one for one in container(found, name)["env"] if one["name"] == variable)


def _without(found: list[Object], name: str, variable: str) -> None:
    container(found, name)["env"].remove(_variable(found, name, variable))


def _renamed(found: list[Object], name: str, variable: str, other: str) -> None:
    _variable(found, name, variable)["name"] = other


def _settings(found: list[Object], **values: str) -> None:
    shared = next(one for one in found if one["metadata"]["name"].startswith("bulkhead-settings"))
    shared["data"] |= values


def _mounted(found: list[Object], name: str, path: str, other: str) -> None:
    next(one for one in container(found, name)["volumeMounts"] if one["mountPath"] == path)["mountPath"] = other


def _secret(found: list[Object], name: str) -> dict[str, str]:
    content: dict[str, str] = next(one for one in found if one["metadata"]["name"] == name)["stringData"]
    return content


PLANTED = {
    "another user": (lambda f: spec(f, "worker")["securityContext"].update(runAsUser=1000), "user: worker"),
    "another group": (lambda f: spec(f, "rag")["securityContext"].update(runAsGroup=0), "user: rag"),
    "own entry point": (lambda f: container(f, "nats").update(command=["nats-server"]), "command: nats"),
    "unknown command": (lambda f: container(f, "upkeep").update(args=["rotate"]), "command: upkeep"),
    "unknown option": (
        lambda f: container(f, "offline-model").update(args=["--prot", "8000"]),
        "command: offline-model",
    ),
    "sentinel's words": (lambda f: container(f, "redis").update(args=["watch"]), "command: redis"),
    "arguments of a service": (lambda f: container(f, "signer").update(args=["--fast"]), "command: signer"),
    "other port": (lambda f: _variable(f, "gateway", "BULKHEAD_HTTP_PORT").update(value="8090"), "ports: gateway"),
    "port too many": (
        lambda f: container(f, "planner")["ports"].append({"name": "extra", "containerPort": 9}),
        "ports: planner: its program does not listen on 9",
    ),
    "loopback": (lambda f: _settings(f, BULKHEAD_HEALTH_HOST="127.0.0.1"), "ports: checker"),
    "misspelt variable": (
        lambda f: _renamed(f, "budget", "BULKHEAD_CHECKPOINT_S", "BULKHEAD_CHECKPOINTS_S"),
        "unknown variable: budget: its program knows no variable BULKHEAD_CHECKPOINTS_S",
    ),
    "variable of nobody": (
        lambda f: container(f, "redis").update(env=[{"name": "BULKHEAD_REDIS_SERVER", "value": "redis"}]),
        "unknown variable: redis",
    ),
    "no address of the ledger": (
        lambda f: _without(f, "budget", "BULKHEAD_REDIS_URL_FILE"),
        "missing variable: budget: BULKHEAD_REDIS_URL",
    ),
    "no tenants": (
        lambda f: _without(f, "signer", "BULKHEAD_TENANTS_FILE"),
        "missing variable: signer: BULKHEAD_TENANTS_FILE",
    ),
    "no issuer": (
        lambda f: container(f, "identity")["envFrom"].pop(),
        "settings: identity: setting BULKHEAD_TOKEN_ISSUER",
    ),
    "no place of the streams": (
        lambda f: container(f, "provision-streams").update(envFrom=[]),
        "missing variable: provision-streams: BULKHEAD_STORE_GIB",
    ),
    "unfit value": (
        lambda f: _variable(f, "planner", "BULKHEAD_SHARDS").update(value="eight"),
        "settings: planner: its settings are refused",
    ),
    "keys elsewhere": (
        lambda f: _mounted(f, "worker", "/bulkhead/identity", "/bulkhead/keys"),
        "files: worker: /bulkhead/identity/worker.sign is in none",
    ),
    "token elsewhere": (
        lambda f: _mounted(f, "checker", "/var/run/secrets/bulkhead/bus", "/var/run/bus"),
        "files: checker: /var/run/secrets/bulkhead/bus/token",
    ),
    "Secret without a key": (
        lambda f: _secret(f, "bulkhead-nats").pop("nkeys.conf"),
        "files: nats: /bulkhead/identity/nkeys.conf",
    ),
    "no disk": (lambda f: _mounted(f, "rag", "/bulkhead/data", "/data"), "files: rag: /bulkhead/data is no volume"),
    "probe of another path": (
        lambda f: container(f, "tool-executor")["readinessProbe"]["httpGet"].update(path="/ready"),
        "probes: tool-executor: readinessProbe: nobody answers /ready",
    ),
    "probe of another port": (
        lambda f: container(f, "gateway")["livenessProbe"]["httpGet"].update(port="http"),
        "probes: gateway: livenessProbe: /livez is answered on the port health",
    ),
    "probe of a program that is not there": (
        lambda f: container(f, "redis")["readinessProbe"]["exec"].update(command=["redis-cli", "ping"]),
        "probes: redis: readinessProbe: its image has no program",
    ),
    "address of nobody": (
        lambda f: _settings(f, BULKHEAD_NATS_URL="tls://broker:4222"),
        "addresses: checker: nobody answers broker:4222",
    ),
    "port of nobody": (
        lambda f: _secret(f, "bulkhead-budget").update(redis_url="redis://:secret@redis:6380/0"),
        "addresses: budget: nobody answers redis:6380",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_breach_is_found(name: str, tmp_path: Path) -> None:
    change, words = PLANTED[name]
    found = broken("dev", tmp_path, lambda objects: change(objects) and None)
    assert [one for one in found if one.startswith(words)], found


def _service(found: list[Object], name: str) -> Object:
    content: Object = next(o for o in found if o["kind"] == "Service" and o["metadata"]["name"] == name)["spec"]
    return content


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: [f.remove(o) for o in list(f) if o["metadata"]["name"] == "bulkhead-rag"], "there is no Secret"),
        (lambda f: container(f, "rag")["readinessProbe"]["httpGet"].update(port="web"), "port web is none"),
        (lambda f: container(f, "nats")["volumeMounts"][0].update(name="disk"), "mounts the volume disk"),
        (lambda f: _service(f, "gateway")["ports"][0].update(targetPort=80), "port 80 is none"),
        (lambda f: _service(f, "nats")["selector"].update(name="other"), "no Service nats chooses its pods"),
    ],
)
def test_a_reference_that_leads_nowhere_is_found(change, words: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ManifestError, match=words):
        broken("dev", tmp_path, lambda objects: change(objects) and None)

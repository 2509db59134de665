"""Each overlay renders, fits the schemas of Kubernetes and of the operators that it uses, and breaks no rule."""

import json
import re
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft7Validator

from bulkhead_infra.docker.image_contents import IMAGES
from bulkhead_infra.kubernetes import images, objects, overlays, rules
from bulkhead_infra.services import EVERY_SERVICE
from bulkhead_services.identity.settings import Settings
from tests.paths import ROOT
from tests.unit.infra.kubernetes.rendered import Object, components, copied, kustomize, named, overlay, parsed

CRDS = Path(__file__).with_name("crds")
OURS = {"Certificate", "Issuer", "ExternalSecret", "ScaledObject"}
NEWEST = [int(part) for part in kubernetes_validate.latest_version().split_round(".")[:2]]
VERSIONS = [f"{NEWEST[0]}.{NEWEST[1] - age}" for age in range(3)]
MORE = ("ingress", "external-secrets", "tls", "keda", "hpa")
NAMES = overlays.OVERLAYS


def _problems(one: Object, version: str) -> list[str]:
    kind = one["kind"]
    if kind in OURS:
        schema = json.loads((CRDS / f"{kind}.json").read_text())
        return [error.message for error in Draft7Validator(schema).iter_errors(one)]
    try:
        kubernetes_validate.validate(one, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [str(error.message)]
    return []


@pytest.mark.parametrize(
    "version", [VERSIONS[0], *(pytest.param(older, marks=pytest.mark.nightly) for older in VERSIONS[1:])]
)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow
def test_every_object_fits_its_schema(name: str, version: str) -> None:
    found = [*overlay(name), *components(*MORE)]
    problems = {f"{one['kind']} {one['metadata']['name']}": _problems(one, version) for one in found}
    assert {where: said for where, said in problems.items() if said} == {}


def test_the_page_names_the_versions_that_were_tried() -> None:
    assert f"Kubernetes {VERSIONS[-1]} to {VERSIONS[0]}," in (ROOT / "docs/how-to/kubernetes.md").read_text()


@pytest.mark.parametrize(
    ("kind", "name", "path", "value"),
    [
        ("Deployment", "worker", ("spec", "replicaz"), 2),
        ("StatefulSet", "nats", ("spec", "replicas"), "three"),
        ("NetworkPolicy", "dns", ("spec", "egres"), []),
        ("Certificate", "bulkhead-nats-tls", ("spec", "dnsName"), []),
        ("Certificate", "bulkhead-nats-tls", ("spec", "privateKey"), {"algorithm": "ECDSB"}),
        ("ExternalSecret", "bulkhead-worker", ("spec", "dataFrom"), {}),
        ("Issuer", "bulkhead-ca", ("spec", "ca"), {}),
        ("ScaledObject", "worker", ("spec", "maxReplicas"), 8),
        ("HorizontalPodAutoscaler", "worker", ("spec", "behaviour"), {}),
    ],
)
def test_the_schemas_notice_a_wrong_field(kind: str, name: str, path: tuple[str, str], value: object) -> None:
    one = named([*overlay("production"), *components(*MORE)], kind, name)
    one[path[0]][path[1]] = value
    assert _problems(one, VERSIONS[0])


def test_dev_breaks_no_rule_but_that_its_images_have_no_digest() -> None:
    assert rules.broken(overlay("dev"), promoted=False) == []
    assert {one.rule for one in rules.broken(overlay("dev"))} == {"by-digest"}


@pytest.mark.parametrize("name", overlays.PROMOTED)
def test_an_overlay_breaks_no_rule_once_its_images_are_promoted(name: str, tmp_path: Path) -> None:
    folder = copied(tmp_path) / "overlays" / name
    digests = {
        one: f"registry.example.org/mesh/{one}@sha256:{number:064x}" for number, one in enumerate(images.names(), 1)
    }
    (folder / overlays.IMAGES_FILE).write_text(images.images_text(digests))
    found = parsed(kustomize(folder))
    assert rules.broken(found) == []
    used = {container["image"] for _, _, container in rules.Manifests(found).containers}
    assert used == {digests[one] for one in images.names() if one != "offline-model"}
    assert named(found, "Job", "provision-streams")["metadata"]["name"].endswith(f"-{digests['provisioner'][-64:][:8]}")


@pytest.mark.parametrize("name", NAMES)
def test_each_service_has_a_workload_an_account_and_a_secret_of_its_own(name: str) -> None:
    found = {one["metadata"]["labels"][objects.NAME]: (one, pod) for one, pod in rules.Manifests(overlay(name)).pods}
    for service in EVERY_SERVICE:
        kube = objects.name_of(service)
        pod = found[kube][1]
        mounted = {
            source["secret"]["name"]
            for volume in pod["volumes"]
            for source in volume.get("projected", {}).get("sources", ())
            if "secret" in source
        }
        assert pod["serviceAccountName"] == kube and mounted == {f"bulkhead-{kube}", objects.TLS_SECRET}
        certificate = [
            source["secret"]["items"]
            for volume in pod["volumes"]
            for source in volume.get("projected", {}).get("sources", ())
            if source.get("secret", {}).get("name") == objects.TLS_SECRET
        ]
        assert certificate == [[{"key": "ca.crt", "path": "ca.pem"}]], "the broker's key is the broker's alone"


@pytest.mark.parametrize("name", NAMES)
def test_tokens_are_what_the_identity_service_lets_in(name: str) -> None:
    """Its permissions, its settings and the pods that show tokens say the same."""
    found = overlay(name)
    rows = next(one["data"] for one in found if one["metadata"]["name"].startswith("bulkhead-permissions-"))
    admitted = {one["service_account"] for one in json.loads(rows["permissions.json"])["services"].values()}
    cluster = next(one["data"] for one in found if one["metadata"]["name"].startswith("bulkhead-cluster-"))
    settings = Settings(_env_file=None)
    showing = set()
    for workload, pod in rules.Manifests(found).pods:
        for token in _tokens(pod):
            if token.get("audience") == settings.token_audience:
                assert token["expirationSeconds"] <= settings.token_max_s
                assert workload["metadata"]["namespace"] == cluster["BULKHEAD_TOKEN_NAMESPACE"]
                showing.add(pod["serviceAccountName"])
    assert showing == admitted == {objects.name_of(one) for one in EVERY_SERVICE} - {"identity"}


def _tokens(pod: Object) -> list[Object]:
    sources = [one for volume in pod["volumes"] for one in volume.get("projected", {}).get("sources", ())]
    return [one["serviceAccountToken"] for one in sources if "serviceAccountToken" in one]


@pytest.mark.parametrize("name", NAMES)
def test_an_upgrade_by_component_leaves_nothing_out(name: str) -> None:
    """All but the namespace, which is there first."""
    components_known = {row.kind for row in EVERY_SERVICE.values()} | {objects.INFRASTRUCTURE}
    left_out = {
        f"{one['kind']} {one['metadata']['name']}"
        for one in [*overlay(name), *components(*MORE)]
        if one["metadata"].get("labels", {}).get(objects.COMPONENT) not in components_known
    }
    assert left_out == {f"Namespace {objects.NAMESPACE}"}


def test_identity_and_signer_are_applied_before_the_others() -> None:
    """Rights exist before they are used: the page's second command names all objects of both."""
    page = (ROOT / "docs/how-to/kubernetes.md").read_text()
    named_there = re.search(rf"{objects.NAME} in \(([\w,]+)\)", page)
    assert named_there is not None
    first = set(named_there[1].split(","))
    assert first == {"identity", "signer"} <= set(EVERY_SERVICE)
    for name in first:
        of_service = parsed((ROOT / objects.FOLDER / "base" / f"{name}.yaml").read_text())
        assert {one["metadata"]["labels"][objects.NAME] for one in of_service} == {name}


@pytest.mark.parametrize("name", NAMES)
def test_every_image_is_one_that_is_built(name: str) -> None:
    found = {container["image"] for _, _, container in rules.Manifests(overlay(name)).containers}
    used = {one.removeprefix(f"{objects.IMAGES}/").partition("@")[0].partition(":")[0] for one in found}
    built = {objects.name_of(one) for one in IMAGES}
    assert used == (built if name == "dev" else built - {"offline-model"})


@pytest.mark.parametrize(("name", "policy"), [("dev", "Never"), ("production", "IfNotPresent")])
def test_images_of_a_machine_are_pulled_from_no_registry(name: str, policy: str) -> None:
    found = rules.Manifests(overlay(name)).containers
    assert {container["imagePullPolicy"] for _, _, container in found} == {policy}


def test_a_private_registry_is_named_by_the_patch_of_the_page(tmp_path: Path) -> None:
    page = (ROOT / "docs/how-to/kubernetes.md").read_text()
    written = re.search(r"^patches:\n(?:[ -].*\n)+", page, re.M)
    assert written is not None
    folder = copied(tmp_path) / "overlays" / "mine"
    folder.mkdir()
    top = {"resources": ["../production"], **yaml.safe_load(written[0])}
    (folder / "kustomization.yaml").write_text(objects.plain(top))
    accounts = [one for one in parsed(kustomize(folder)) if one["kind"] == "ServiceAccount"]
    assert len(accounts) > len(EVERY_SERVICE)
    assert all(one["imagePullSecrets"] == [{"name": "registry"}] for one in accounts)


@pytest.mark.slow
def test_new_settings_are_a_new_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """The template of a Job cannot be changed, and it names ConfigMaps by their content."""

    def job() -> str:
        rendered = overlays.files(ROOT)[f"{objects.FOLDER}/base/provision-streams.yaml"]
        name: str = named(parsed(rendered), "Job", "provision-streams")["metadata"]["name"]
        return name

    before = job()
    assert job() == before
    for change in ("_settings", "_streams", "_single_url"):
        with monkeypatch.context() as patched:
            own = getattr(overlays, change)
            patched.setattr(overlays, change, lambda *given, own=own: own(*given) | {"BULKHEAD_NEW": "1"})
            assert job() != before, change


def _replicas(name: str) -> dict[str, int]:
    return {
        one["metadata"]["name"]: one["spec"]["replicas"] for one in overlay(name) if "replicas" in one.get("spec", {})
    }


def test_dev_has_one_of_each() -> None:
    counts = _replicas("dev")
    assert set(counts.values()) == {1} and {"nats", "redis", "gateway"} <= set(counts)


@pytest.mark.parametrize("name", NAMES)
def test_services_streams_and_permissions_agree_about_shards(name: str) -> None:
    found = overlay(name)
    streams = next(one["data"] for one in found if one["metadata"]["name"].startswith("bulkhead-streams-"))
    told = {key: value for key, value in streams.items() if key.startswith("BULKHEAD_SHARDS_")}
    rows = next(one["data"] for one in found if one["metadata"]["name"].startswith("bulkhead-permissions-"))
    permissions = json.loads(rows["permissions.json"])["services"]
    for _, pod in rules.Manifests(found).pods:
        env = {one["name"]: one.get("value") for one in pod["containers"][0].get("env", ())}
        service = pod["serviceAccountName"].replace("-", "_")
        if "BULKHEAD_SHARDS" in env:
            assert env["BULKHEAD_SHARDS"] == told.get(f"BULKHEAD_SHARDS_{service.upper()}", "1")
            may = [one for one in permissions[service]["publish"] if ".CONSUMER.MSG.NEXT." in one]
            assert len(may) == int(env["BULKHEAD_SHARDS"])
    assert len(told) == 3 and streams["BULKHEAD_RANKED"] == "true"


def test_production_has_three_brokers_two_of_each_service_and_one_store_of_documents() -> None:
    counts = _replicas("production")
    services = {objects.name_of(name) for name in EVERY_SERVICE}
    assert counts["nats"] == 3 and counts["redis"] == 2 and counts["sentinel"] == 3 and counts["rag"] == 1
    assert {counts[name] for name in services - {"rag"}} == {2}
    noted = {
        one["metadata"]["name"]
        for one in overlay("production")
        if objects.REPLICAS_NOTE in one["metadata"].get("annotations", {})
    }
    assert noted == {"budget", "identity", "signer", "rag", "redis", "upkeep"}


@pytest.mark.parametrize("name", NAMES)
def test_a_server_that_cannot_come_back_holds_up_no_other(name: str) -> None:
    """With redis-0 lost and OrderedReady, redis-1 would not be made again either."""
    policies = {
        one["metadata"]["name"]: one["spec"].get("podManagementPolicy")
        for one in overlay(name)
        if one["kind"] == "StatefulSet" and one["metadata"]["labels"][objects.COMPONENT] == "infrastructure"
    }
    servers = {"nats", "redis"} if name == "dev" else {"nats", "redis", "sentinel"}
    assert policies == dict.fromkeys(servers, "Parallel")


def test_a_rolling_restart_waits_until_a_brokers_streams_have_caught_up() -> None:
    """Beside a broker that still catches up, a second one that goes takes the majority of a stream along."""
    pod = named(overlay("production"), "StatefulSet", "nats")["spec"]["template"]["spec"]
    probes = {key: pod["containers"][0][key] for key in rules.PROBES}
    assert probes["startupProbe"]["httpGet"]["path"] == "/healthz"
    # One that lags later stays: what it serves is better than another restart.
    assert {probes[key]["httpGet"]["path"] for key in ("livenessProbe", "readinessProbe")} == {
        "/healthz?js-enabled-only=true",
        "/healthz?js-server-only=true",
    }


def test_what_is_needed_by_all_goes_before_workers() -> None:
    classes = {
        one["metadata"]["name"]: pod["priorityClassName"] for one, pod in rules.Manifests(overlay("production")).pods
    }
    values = {one["metadata"]["name"]: one["value"] for one in overlay("production") if one["kind"] == "PriorityClass"}
    critical = {name for name, one in classes.items() if one == objects.CRITICAL}
    assert critical == {"budget", "doors", "gateway", "identity", "signer", "nats", "redis", "sentinel"}
    assert values[objects.CRITICAL] > values[objects.STANDARD]


def test_new_tenants_are_new_pods_of_those_who_read_them(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    tenants = folder / "base" / "tenants.yaml"
    tenants.write_text(tenants.read_text() + "# one more line\n")
    after = parsed(kustomize(folder / "overlays" / "dev"))
    both = zip(rules.Manifests(overlay("dev")).pods, rules.Manifests(after).pods, strict=True)
    changed = {workload["metadata"]["name"] for (_, before), (workload, now) in both if before != now}
    assert changed == {"doors", "gateway", "signer", "tool-executor"}

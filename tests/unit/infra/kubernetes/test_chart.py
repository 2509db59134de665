"""The chart renders objects that fit the schemas of Kubernetes and of operators, and hold what the rows say."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft7Validator

from bulkhead_infra.docker.image_contents import IMAGES
from bulkhead_infra.identity.policy import IdentityPolicy, ReachablePlace, ServicePolicy, Use, load_policy
from bulkhead_infra.kubernetes import chart
from bulkhead_infra.kubernetes.chart import ImageListError, image_values, kube_name, service_facts
from bulkhead_infra.services import EVERY_SERVICE, ServiceDefinition, Setting
from bulkhead_services.identity.settings import Settings
from tests.needs import need
from tests.paths import ROOT
from tests.unit.infra.kubernetes.rendered import (
    DIGESTS,
    INSTALLATIONS,
    Object,
    example,
    installation,
    named,
    render_chart,
    render_texts,
)  # fmt: skip
from tests.unit.infra.kubernetes.rules import Installation

CRDS = Path(__file__).with_name("crds")
NEWEST = [int(part) for part in kubernetes_validate.latest_version().split(".")[:2]]
VERSIONS = [f"{NEWEST[0]}.{NEWEST[1] - age}" for age in range(3)]


def _problems(each: Object, version: str) -> list[str]:
    schema = CRDS / f"{each['kind']}.json"
    if schema.is_file():
        return [error.message for error in Draft7Validator(json.loads(schema.read_text())).iter_errors(each)]
    try:
        kubernetes_validate.validate(each, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [str(error.message)]
    return []


@pytest.mark.parametrize(
    "version", [VERSIONS[0], *(pytest.param(older, marks=pytest.mark.nightly) for older in VERSIONS[1:])]
)
@pytest.mark.parametrize("name", INSTALLATIONS)
@pytest.mark.slow
def test_every_object_fits_its_schema(name: str, version: str) -> None:
    problems = {f"{each['kind']} {each['metadata']['name']}": _problems(each, version) for each in installation(name)}
    assert {where: problem for where, problem in problems.items() if problem} == {}


@pytest.mark.parametrize("name", INSTALLATIONS)
def test_helm_lints_each_example(name: str) -> None:
    need("helm")
    import helm_python

    report = helm_python.lint(ROOT / chart.CHART, example(name), namespace="bulkhead")
    assert report["errors"] == [] and [row["error"] for row in report["messages"]] == ["icon is recommended"]


def test_the_chart_has_the_version_of_the_project() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    about = yaml.safe_load((ROOT / chart.CHART / "Chart.yaml").read_text())
    assert about["version"] == about["appVersion"] == version


def test_the_page_names_the_versions_that_were_tried() -> None:
    assert f"Kubernetes {VERSIONS[-1]} to {VERSIONS[0]}" in (ROOT / "docs/how-to/kubernetes.md").read_text()


@pytest.mark.parametrize("name", ["dev", "production"])
def test_a_quota_needs_what_the_page_says(name: str) -> None:
    page = (ROOT / "docs/how-to/kubernetes.md").read_text()
    figures = re.search(rf"`{name}` (?:requests )?(\d+) pods, ([\d.]+) CPUs, ([\d.]+) GiB", page)
    assert figures is not None
    sums = [0.0, 0.0, 0.0]
    objects = render_chart(example(name) | {"autoscaling": {"by": ""}})
    for workload, container, _ in Installation(objects).containers:
        requests = container["resources"]["requests"]
        parts = (1, int(requests["cpu"].rstrip("m")) / 1000, int(requests["memory"].rstrip("Mi")) / 1024)
        count = workload["spec"].get("replicas", 1)
        sums = [total + count * part for total, part in zip(sums, parts, strict=True)]
    for figure, total in zip(map(float, figures.groups()), sums, strict=True):
        assert total <= figure + 1e-9 and figure - total < 0.1, sums


def _chosen(selector: str, objects: list[Object]) -> set[tuple[str, str]]:
    """Kinds and names by `key=value` and `key in|notin (values)`; the last takes those without the key, too."""
    chosen = set()
    for each in objects:
        labels = each["metadata"].get("labels", {})
        equal = all(labels.get(key) == value for key, value in re.findall(r"([\w./-]+)=([\w-]+)", selector))
        sets = re.findall(r"([\w./-]+) (in|notin) \(([\w,-]+)\)", selector)
        if equal and all((labels.get(key) in values.split(",")) == (word == "in") for key, word, values in sets):
            chosen.add((each["kind"], each["metadata"]["name"]))
    return chosen


def test_the_pages_selectors_choose_what_comes_first() -> None:
    page = (ROOT / "docs/how-to/kubernetes.md").read_text()
    rights, restored = re.findall(r"-l '([^']+)'", page)
    objects = installation("production")
    assert {("Deployment", "identity"), ("ServiceAccount", "signer")} < _chosen(rights, objects)
    brokers = _chosen(restored, objects)
    assert {("StatefulSet", "nats"), ("Service", "redis"), ("ConfigMap", "bulkhead-broker")} < brokers
    assert {("NetworkPolicy", "default-deny"), ("PriorityClass", "bulkhead-critical")} < brokers
    assert not [name for kind, name in brokers if kind in ("Deployment", "Job") or name.startswith(("upkeep", "rag"))]
    components = {each["metadata"]["labels"]["app.kubernetes.io/component"] for each in objects}
    assert components == {row.kind for row in EVERY_SERVICE.values()} | {"infrastructure"}


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"image": {"digests": {}}}, "image .* has no digest: add the file of promoted images"),
        ({"image": {"tag": "latest"}}, "tag"),
        ({"image": {"digests": {"worker": "sha256:1"}}}, "digests"),
        ({"nats": {"replicas": 2}}, "replicas"),
        ({"autoscalling": {"by": "keda"}}, "autoscalling"),
        ({"services": {"walker": {"replicas": 3}}}, "walker"),
        ({"settings": {"BULKHEAD_LOG_JSON": True}}, "BULKHEAD_LOG_JSON"),
        ({"nats": {"inCluster": False}}, "where is your broker"),
    ],
)
def test_values_that_do_not_fit_are_refused(values: Object, problem: str) -> None:
    need("helm")
    import helm_python

    with pytest.raises(helm_python.HelmError, match=problem):
        render_chart(example("production") | values)


@pytest.mark.parametrize("name", INSTALLATIONS)
def test_each_service_has_a_secret_of_its_own_and_not_the_brokers_key(name: str) -> None:
    for _, pod in Installation(installation(name)).pods:
        if pod["serviceAccountName"].replace("-", "_") in EVERY_SERVICE:
            sources = [source for volume in pod["volumes"] for source in volume.get("projected", {}).get("sources", ())]
            assert [source["secret"] for source in sources if "secret" in source] == [
                {"name": f"bulkhead-{pod['serviceAccountName']}"},
                {"name": "bulkhead-nats-tls", "items": [{"key": "ca.crt", "path": "ca.pem"}]},
            ]


def test_tokens_are_what_the_identity_service_lets_in() -> None:
    objects = render_chart(example("production"), namespace="mesh")
    permissions = json.loads(named(objects, "ConfigMap", "bulkhead-permissions")["data"]["permissions.json"])
    cluster, settings = named(objects, "ConfigMap", "bulkhead-cluster")["data"], Settings(_env_file=None)
    assert cluster["BULKHEAD_TOKEN_NAMESPACE"] == "mesh"
    showing = set()
    for _, pod in Installation(objects).pods:
        for source in (
            source for volume in pod["volumes"] for source in volume.get("projected", {}).get("sources", ())
        ):
            token = source.get("serviceAccountToken", {})
            if token.get("audience") == settings.token_audience and token["expirationSeconds"] <= settings.token_max_s:
                showing.add(pod["serviceAccountName"])
    assert showing == {row["service_account"] for row in permissions["services"].values()}
    assert showing == {kube_name(service) for service in EVERY_SERVICE} - {"identity"}
    [subject] = named(objects, "ClusterRoleBinding", "mesh-identity")["subjects"]
    assert subject == {"kind": "ServiceAccount", "name": "identity", "namespace": "mesh"}


def test_every_image_is_one_that_is_built() -> None:
    used = {row["image"].partition("/")[2] for _, row, _ in Installation(installation("dev")).containers}
    assert used == {f"{kube_name(image)}:dev" for image in IMAGES}
    promoted = {row["image"] for _, row, _ in Installation(installation("production")).containers}
    assert promoted == {f"registry.example.org/mesh/{n}@{d}" for n, d in DIGESTS.items() if n != "offline-model"}


def _content(objects: list[Object]) -> dict[str, Any]:
    """What makes new pods, by workload; a Job is another one."""
    return {
        workload["metadata"]["name"]: {**pod, "notes": workload["spec"]["template"]["metadata"].get("annotations")}
        for workload, pod in Installation(objects).pods
    }


@pytest.mark.parametrize(
    ("values", "changed"),
    [
        ({"tenants": "tenants: {}\n"}, {"doors", "gateway", "registry", "signer", "tool-executor"}),
        ({"policies": {"own.cedar": "permit (principal, action, resource);"}}, {"tool-executor"}),
        ({"identities": "publishers: {}"}, {"upkeep", "provision-streams"}),
        ({"retention": "7d"}, {"upkeep", "provision-streams"}),
        ({"cluster": {"tokenIssuer": "https://issuer.example.org"}}, {"identity"}),
        ({"settings": {"BULKHEAD_LOG_LEVEL": "debug"}}, set(map(kube_name, EVERY_SERVICE))),
    ],
)
def test_another_configuration_is_new_pods_of_those_who_read_it(values: Object, changed: set[str]) -> None:
    before, after = _content(installation("dev")), _content(render_chart(example("dev") | values))
    new = {name.partition("-streams")[0] for name in {*before, *after} if before.get(name) != after.get(name)}
    assert new == {name.partition("-streams")[0] for name in changed}


def test_what_a_person_adds_is_beside_the_facts() -> None:
    values = example("dev") | {"replicas": 3, "services": {"worker": {"replicas": 5, "env": {"MORE": "1"}}}}
    values["image"] = values["image"] | {"pullSecrets": ["registry"]}
    objects = render_chart(values)
    counts = {each["metadata"]["name"]: each["spec"]["replicas"] for each in objects if each["kind"] == "Deployment"}
    assert counts["worker"] == 5 and counts["gateway"] == 3 and counts["upkeep"] == 1
    env = {name: _env(named(objects, "Deployment", name)) for name in ("worker", "gateway", "model-gateway")}
    assert env["worker"]["MORE"] == "1" and env["worker"]["BULKHEAD_SHARDS"] == "8"
    assert env["gateway"]["BULKHEAD_EDGE_REPLICAS"] == "3"
    assert env["model-gateway"]["OPENAI_BASE_URL"] == "http://offline-model:8000/v1"
    accounts = [each for each in objects if each["kind"] == "ServiceAccount"]
    assert all(each["imagePullSecrets"] == [{"name": "registry"}] for each in accounts)
    assert "single" in render_texts(values)["bulkhead/templates/NOTES.txt"]


def _env(workload: Object) -> dict[str, str]:
    [container] = workload["spec"]["template"]["spec"]["containers"]
    return {row["name"]: row["value"] for row in container["env"]}


def _new_service(row: ServiceDefinition, *reaches: ReachablePlace) -> list[Object]:
    """A service that only a row of services.yaml and one of policy.yaml describe."""
    rules, rights = load_policy(kubernetes=True), ServicePolicy(uses=frozenset({Use.INBOX}), reaches=frozenset(reaches))
    more = IdentityPolicy.model_construct(services={**rules.services, "page_reader": rights}, operator=rules.operator)
    values = {"services": {"page-reader": service_facts("page_reader", row, more)}}
    values |= {"image": {"tag": "dev", "pullPolicy": "Never"}}
    return [each for each in render_chart(example("dev") | values) if "page-reader" in json.dumps(each)]


def test_two_rows_are_enough_for_a_service() -> None:
    objects = _new_service(ServiceDefinition(kind="doer", drain=3, memory_mib=384, cpu_milli=100), ReachablePlace.REDIS)
    own = {each["kind"] for each in objects if each["metadata"]["name"] == "page-reader"}
    assert own == {"ServiceAccount", "Deployment", "PodDisruptionBudget"}
    [container] = named(objects, "Deployment", "page-reader")["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"] == {"cpu": "100m", "memory": "384Mi"}
    policies = {each["metadata"]["name"] for each in objects if each["kind"] == "NetworkPolicy"}
    assert policies == {"bus-servers", "bus-clients", "redis-servers", "redis-clients"}


def test_a_service_with_a_store_keeps_its_disk_and_is_one_alone() -> None:
    spec = named(
        _new_service(ServiceDefinition(kind="doer", drain=3), ReachablePlace.DOCUMENTS), "StatefulSet", "page-reader"
    )["spec"]
    assert spec["replicas"] == 1 and [claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]] == ["data"]


@pytest.mark.parametrize("setting", Setting)
def test_a_file_that_a_setting_names_is_mounted(setting: Setting) -> None:
    row = ServiceDefinition(kind="edge", drain=1, environment=(setting,), port=8090 if setting is Setting.HTTP else 0)
    workload = named(_new_service(row), "Deployment", "page-reader")
    paths = [mount["mountPath"] for mount in workload["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]]
    files = [value for name, value in _env(workload).items() if name.endswith(("_FILE", "_DIR"))]
    assert all(any(file.startswith(path) for path in paths) for file in files)


def test_images_of_a_release_are_values() -> None:
    line = f"{'a' * 64}  registry.example.org:5000/mesh/worker:v1.2.0\n"
    image = yaml.safe_load(image_values(line))["image"]
    assert image == {"registry": "registry.example.org:5000/mesh", "digests": {"worker": f"sha256:{'a' * 64}"}}
    for wrong in ("worker: v1\n", f"{line}{'a' * 64}  other.example.org/planner:v1.2.0\n"):
        with pytest.raises(ImageListError, match="restore the file from git"):
            image_values(wrong)

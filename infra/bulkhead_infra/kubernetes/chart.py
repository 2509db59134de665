"""Facts of the Helm chart: what follows from the rows of services, policy and catalog.

In: services.yaml, policy.yaml, tenants.yaml, tool policies and the tree. Out: {path: text}: the chart's `files/`,
`values.yaml` with the facts of each service below its mark, and values with the images of each environment. Above the
mark, and in the templates, a person writes.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from bulkhead.runtime.settings import ServiceSettings
from bulkhead_contracts import catalog, subjects
from bulkhead_infra.composition import ContainerPaths, container_variables, settings_of
from bulkhead_infra.identity import policy, render
from bulkhead_infra.identity.policy import IdentityPolicy, ReachablePlace, ServicePolicy
from bulkhead_infra.nats.configuration import ACCOUNTS_FILE, CONF_FILE, ServerPlan, render_configuration
from bulkhead_infra.services import EVERY_SERVICE, ServiceDefinition, Setting

CHART = "infra/chart/bulkhead"
VALUES = f"{CHART}/values.yaml"
MARK = "# Rendered by `make render` from here on: facts of each service, which values of yours may change.\n"
RENDERED_FOLDER = f"{CHART}/files"
"""A folder in which nothing else lies."""
POLICY_FOLDER = Path(policy.HERE).parent / "policy"
IDENTITY, DATA = "/bulkhead/identity", "/bulkhead/data"
PATHS = ContainerPaths(IDENTITY, f"{IDENTITY}/api_keys.json", "/bulkhead/tenants/tenants.yaml", "/bulkhead/policy")
TOKEN_FILE, CLUSTER = "/var/run/secrets/bulkhead/bus/token", "/var/run/secrets/bulkhead/cluster"
IMAGES_FOLDER = "infra/chart/images"
"""NAME.sha256, the list of an environment's release, as `infra/release/images.sh` writes it; and NAME.yaml."""
ENVIRONMENTS = ("staging", "production")
LINE = re.compile(r"(?P<hex>[0-9a-f]{64})  (?P<registry>\S+)/(?P<name>[a-z0-9-]+):[^\s/:]+")
NKEYS_FILE = "nkeys.conf"
LOGIN_VARIABLES = ("LOGIN_ISSUER", "LOGIN_XKEY")
BROKERS = 3
NATS, MONITOR, REDIS, SENTINEL = 4222, 8222, 6379, 26379
SHARDS: Mapping[str, int] = dict.fromkeys(catalog.DECIDERS, 8)
"""Shards of inboxes that have several, as many as there are ranks (ADR 0017). Their number stays as it is for the life
of a mesh; up to that many replicas keep what they know of a task in memory."""
MARGIN_S, PRE_STOP_S = 5, 5
"""Beyond the drain, before a process is killed; and in which a pod behind a Service is forgotten by its callers."""
DOCUMENTS_SIZE = "10Gi"
RECREATED = frozenset({"budget"})
"""Two versions of it beside each other would both write the ledger in Redis: see docs/how-to/upgrade.md."""
OPTIONAL: Mapping[str, str] = {"BULKHEAD_PUBLISHERS_FILE": "publishers_file"}
"""Variables that not every service with `callers` knows, and their fields."""

Facts = dict[str, Any]


class ImageListError(ValueError):
    """A list of images that is of no release; the message says where and what to do."""


def files(root: Path) -> dict[str, str]:
    """Texts by path. root: the tree, whose hand-written part of values.yaml stays."""
    rules = policy.load_policy(kubernetes=True)
    facts = {kube_name(name): service_facts(name, row, rules) for name, row in EVERY_SERVICE.items()}
    own, _, _ = (root / VALUES).read_text().partition(MARK)
    rendered = {
        ACCOUNTS_FILE: accounts_text(rules),
        "permissions.json": render.render_permissions(rules, SHARDS),
        "tenants.yaml": policy.TENANTS_FILE.read_text(),
        f"one-broker/{CONF_FILE}": broker_configuration(1),
        f"three-brokers/{CONF_FILE}": broker_configuration(BROKERS),
        **{f"policy/{path.name}": path.read_text() for path in sorted(POLICY_FOLDER.glob("*.cedar"))},
    }
    values = {VALUES: own + MARK + yaml.safe_dump({"services": facts}, sort_keys=False, width=118)}
    for name in ENVIRONMENTS:
        images = root / IMAGES_FOLDER / f"{name}.sha256"
        values[f"{IMAGES_FOLDER}/{name}.yaml"] = image_values(images.read_text() if images.is_file() else "")
    return values | {f"{RENDERED_FOLDER}/{file}": text for file, text in rendered.items()}


def image_values(images: str) -> str:
    """A values file with the images of a release by digest. images: a line `SHA256  HOST/PREFIX/NAME:VERSION` for each.
    Raises ImageListError."""
    matches = [LINE.fullmatch(line) for line in images.splitlines()]
    rows = [match for match in matches if match]
    registries = sorted({match["registry"] for match in rows})
    if len(rows) < len(matches) or len(registries) > 1:
        number = next((number for number, match in enumerate(matches, 1) if not match), len(matches))
        raise ImageListError(
            f"line {number} of a list in {IMAGES_FOLDER} is of no release, or of another registry than the lines "
            "before: restore the file from git"
        )
    image: Facts = {"registry": registries[0]} if rows else {}
    image["digests"] = {match["name"]: f"sha256:{match['hex']}" for match in rows}
    head = "# Rendered by `make render` from the list of images that the environment has.\n"
    return head + yaml.safe_dump({"image": image}, sort_keys=False)


def kube_name(service: str) -> str:
    """The name of a service in Kubernetes, where underscores are not allowed."""
    return service.replace("_", "-")


def broker_names(count: int = BROKERS) -> list[str]:
    """Host names of the brokers."""
    return [f"nats-{number}.nats" for number in range(count)]


def service_facts(name: str, row: ServiceDefinition, rules: IdentityPolicy) -> Facts:
    """Facts of one service, as the templates read them; a field that is absent is false there."""
    rights, drain_s = rules.services[name], int(ServiceSettings.model_fields["drain_timeout_s"].default)
    token, key_set = name in rules.with_token, ReachablePlace.KEY_SET in rights.reaches
    facts: Facts = {
        "component": row.kind,
        "port": row.port,
        "memory": f"{row.memory_mib}Mi",
        "cpu": f"{row.cpu_milli}m",
        "graceSeconds": drain_s + MARGIN_S + (PRE_STOP_S if row.port else 0),
        "env": service_variables(name, row, rights, token=token),
        # A ConfigMap each, mounted under /bulkhead.
        "configuration": [
            *(["permissions"] if key_set else []),
            *(setting.value for setting in (Setting.TENANTS, Setting.POLICY) if setting in row.environment),
        ],
        "reaches": sorted(place.value for place in rights.reaches),
        # The token of its service account is its login to the broker.
        "busToken": token,
        "dividesRates": Setting.HTTP in row.environment and _has_field(name, "edge_replicas"),
        "recreated": name in RECREATED,
        "disk": DOCUMENTS_SIZE if ReachablePlace.DOCUMENTS in rights.reaches else "",
        "scaling": _scaling_facts(name, row),
    }
    return {key: value for key, value in facts.items() if value}


def _scaling_facts(name: str, row: ServiceDefinition) -> Facts:
    if row.scaling is None:
        return {}
    facts: Facts = {"min": row.scaling.min, "max": row.scaling.max, "calmSeconds": row.scaling.calm_s}
    if row.scaling.load:
        facts["load"] = True
    if row.scaling.lag:
        shards = range(SHARDS.get(name, 1))
        # A formula adds shards up and is all that counts beside CPU.
        assert len(shards) == 1 or not row.scaling.load, f"{name}: load has no place beside several shards"
        facts |= {"lag": row.scaling.lag, "stream": subjects.inbox_stream(name)}
        facts["durables"] = [subjects.durable_name(name, shard) for shard in shards]
    return facts


def service_variables(name: str, row: ServiceDefinition, rights: ServicePolicy, *, token: bool) -> dict[str, str]:
    """Variables of one service beside those that all share and those that depend on an installation."""
    variables: dict[str, str] = {}
    if token:
        variables["BULKHEAD_NATS_TOKEN_FILE"] = TOKEN_FILE
    if ReachablePlace.KEY_SET in rights.reaches:
        variables |= {
            "BULKHEAD_KEY_SET_CA_FILE": f"{CLUSTER}/ca.crt",
            "BULKHEAD_KEY_SET_BEARER_FILE": f"{CLUSTER}/token",
            "BULKHEAD_PERMISSIONS_FILE": "/bulkhead/permissions/permissions.json",
        }
    for setting in row.environment:
        variables |= container_variables(setting, row.port, PATHS)
    for variable, field in OPTIONAL.items():
        if variable in variables and not _has_field(name, field):
            del variables[variable]
    if name in catalog.INBOXES:
        variables["BULKHEAD_SHARDS"] = str(SHARDS.get(name, 1))
    return variables | {f"BULKHEAD_{knob.upper()}": value for knob, value in row.knobs.items()}


def _has_field(name: str, field: str) -> bool:
    """True when the settings of a service know a field; those of a service that a test adds know every one."""
    return name not in EVERY_SERVICE or field in settings_of(name).model_fields


def broker_configuration(count: int) -> str:
    """nats-server.conf of one broker or of several."""
    folder = Path(IDENTITY)
    plan = ServerPlan(
        folder=folder,
        port=NATS,
        monitor_port=MONITOR,
        host="0.0.0.0",  # noqa: S104
        monitor_host="0.0.0.0",  # noqa: S104 - probes come from the machine
        store=Path(DATA) / "store",
        tls=(folder / "broker.pem", folder / "broker.key"),
        brokers=tuple(broker_names(count)) if count > 1 else (),
        ca=folder / "ca.pem",
    )
    return render_configuration(plan)


def accounts_text(rules: IdentityPolicy) -> str:
    """The accounts with a variable in the place of each public key: those stand in a file of the Secret."""
    names = {identity: f"$NKEY_{identity.upper()}" for identity in rules.with_nkey}
    logins = render.LoginKeys(*(f"${name}" for name in LOGIN_VARIABLES))
    return f'include "./{NKEYS_FILE}"\n{render.render_accounts(rules, names, SHARDS, logins=logins)}'

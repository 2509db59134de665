"""Keys and passwords of a mesh in Kubernetes, made off the cluster, and the Secrets that carry them there.

In: a folder of a person's own. Out: a folder per owner in it, as volumes of keys are in containers; Secrets
`bulkhead-<owner>` with just those files, and the brokers' certificate. The operator's and the CA's keys stay outside.
Everything may be done again and then changes nothing.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from bulkhead_infra.docker.provisioner import (
    BROKER_NAMES,
    MASTER_FOLDER,
    redis_configuration,
    redis_password,
    secret_files_of,
)
from bulkhead_infra.identity import keys, policy, tls
from bulkhead_infra.identity.keys import KeyFileError
from bulkhead_infra.kubernetes import chart
from bulkhead_infra.services import EVERY_SERVICE

REDIS_ADDRESSES = {
    "sentinel": f"redis+sentinel://:{{}}@sentinel:{chart.SENTINEL}/mesh",
    "single": f"redis://:{{}}@redis:{chart.REDIS}/0",
}
"""Places of Redis by the chart's `redis.sentinel`, with `{}` for the password."""
REDIS_FILE = "redis.kind"
PROVISIONER = "provisioner"
SECRET_OWNERS = (*EVERY_SERVICE, "nats", "redis", PROVISIONER, "upkeep")
"""Owners of a Secret in the cluster."""
IDENTITIES_FILE, VALUES_FILE = "identities.yaml", "identities.values.yaml"
TLS_SECRET = "bulkhead-nats-tls"  # noqa: S105 - a name
VARIABLE = re.compile(r"\$((?:NKEY|LOGIN)_\w+)")


def ensure_key_folder(root: Path, redis: str = "", identities: Path | None = None) -> str:
    """Make what is missing. redis: a key of REDIS_ADDRESSES, of the first time; it is remembered, and returned.
    identities: programs outside of one's own, remembered as well, with the values that the chart needs for them. Raises
    KeyFileError, IdentityPolicyError."""
    rules, master = policy.load_policy(kubernetes=True), root / MASTER_FOLDER
    own = identities if identities is not None else root / IDENTITIES_FILE
    if identities is not None or own.exists():
        rules = policy.add_programs(rules, policy.load_programs(own), own)
        _write_private(root / IDENTITIES_FILE, text := own.read_text())
        values = {"identities": text, "accounts": chart.accounts_text(rules)}
        _write_private(root / VALUES_FILE, yaml.safe_dump(values))
    keys.ensure_keys(master, rules)
    redis = _remembered_redis(master / REDIS_FILE, redis)
    tls.ensure_certificates(master / "tls", (*chart.broker_names(), *BROKER_NAMES))
    # Beside the keys, where `bulkhead backup --identity` looks for it; a person may put cert-manager's there.
    keys.write_new(master / tls.CA_FILE, (master / "tls" / tls.CA_FILE).read_text())
    (root / "operator").mkdir(mode=0o700, exist_ok=True)
    for service in EVERY_SERVICE:
        secret_files = secret_files_of(service, rules, root, REDIS_ADDRESSES[redis])
        if service == policy.IDENTITY:
            secret_files |= {file: (master / file).read_text() for file in (keys.ISSUER_FILE, keys.XKEY_FILE)}
        keys.hand_over(master, service, root / service, secret_files, nkey=service in rules.with_nkey)
    for owner, key_names in (
        ("operator", (policy.OPERATOR,)),
        (PROVISIONER, (policy.PROVISIONER,)),
        ("upkeep", (policy.OPERATOR, policy.PROVISIONER)),
    ):
        for identity in key_names:
            _write_private(root / owner / f"{identity}.nkey", keys.nkey_seed(master, identity))
    _write_private(root / "nats" / chart.NKEYS_FILE, _public_nkeys(master, rules))
    _write_private(root / "redis" / "redis.conf", redis_configuration(redis_password(root)))
    return redis


def render_secrets(root: Path, *, certificate: bool = True) -> Iterator[dict[str, Any]]:
    """The Secrets of a mesh. certificate: that of the brokers too, when no cert-manager makes it. Raises
    KeyFileError."""
    if not (root / MASTER_FOLDER).is_dir():
        raise KeyFileError(
            f"{root} holds no keys: make them first, with `python -m bulkhead_infra.kubernetes keys {root}`"
        )
    for owner in SECRET_OWNERS:
        files = {path.name: path.read_text() for path in sorted((root / owner).iterdir()) if path.name[0] != "."}
        yield _render_secret(f"bulkhead-{chart.kube_name(owner)}", files)
    if certificate:
        names = {"ca.crt": tls.CA_FILE, "tls.crt": tls.BROKER_FILE, "tls.key": tls.BROKER_KEY_FILE}
        files = {key: (root / MASTER_FOLDER / "tls" / file).read_text() for key, file in names.items()}
        yield _render_secret(TLS_SECRET, files) | {"type": "kubernetes.io/tls"}


def _remembered_redis(path: Path, redis: str) -> str:
    before = path.read_text().strip() if path.exists() else ""
    if before and redis and before != redis:
        raise KeyFileError(
            f"these keys were made for a mesh with `--redis {before}`: two meshes must not share any; name another "
            f"folder for `--redis {redis}`, or leave it out"
        )
    keys.write_new(path, before or redis or next(iter(REDIS_ADDRESSES)))
    return path.read_text().strip()


def _public_nkeys(master: Path, rules: policy.IdentityPolicy) -> str:
    """The variables of the accounts, and no other: the broker refuses what it does not use."""
    wanted = sorted(set(VARIABLE.findall(chart.accounts_text(rules))))
    values = {f"NKEY_{name.upper()}": key for name, key in keys.public_nkeys(master, rules).items()}
    values |= dict(zip(chart.LOGIN_VARIABLES, keys.login_keys(master), strict=True))
    return "".join(f"{name}: {values[name]}\n" for name in wanted)


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    keys.replace_file(path, text)


def _render_secret(name: str, files: dict[str, str]) -> dict[str, Any]:
    """Without a namespace: `kubectl apply` has it."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "bulkhead"}},
        "type": "Opaque",
        "stringData": files,
    }

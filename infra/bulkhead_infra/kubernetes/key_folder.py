"""Keys and passwords of a mesh in Kubernetes, made off the cluster, and the Secrets that carry them there.

In: a folder of a person's own. Out: a folder per owner in it, as volumes of keys are in containers; Secrets
`bulkhead-<owner>` with just those files, and the brokers' certificate. The operator's and the CA's keys stay outside.
Everything may be done again and then changes nothing.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from bulkhead_infra.docker.provisioner import ALL, BROKER_NAMES, files_of, redis_configuration, redis_password
from bulkhead_infra.identity import keys, policy, tls
from bulkhead_infra.identity.keys import KeyFileError
from bulkhead_infra.kubernetes import infrastructure, network, objects, overlays
from bulkhead_infra.kubernetes.objects import Object
from bulkhead_infra.services import EVERY_SERVICE

OVERLAY_FILE = "overlay"
VARIABLE = re.compile(r"\$((?:NKEY|LOGIN)_\w+)")


def ensure(root: Path, overlay: str = "") -> str:
    """Make what is missing. overlay: for which one, of the first time; it is remembered, and returned. Raises
    KeyFileError."""
    rules, master = policy.load_policy(kubernetes=True), root / ALL
    keys.ensure_keys(master, rules)
    overlay = _overlay(master / OVERLAY_FILE, overlay)
    tls.ensure_certificates(master / "tls", (*infrastructure.brokers(), *BROKER_NAMES))
    # Beside the keys, where `bulkhead backup --identity` looks for it; a person may put cert-manager's there.
    keys.write_new(master / tls.CA_FILE, (master / "tls" / tls.CA_FILE).read_text())
    single = overlay == "dev"
    address = f"redis:{network.REDIS}/0" if single else f"sentinel:{network.SENTINEL}/mesh"
    place = f"{'redis' if single else 'redis+sentinel'}://:{{}}@{address}"
    (root / "operator").mkdir(mode=0o700, exist_ok=True)
    for service in EVERY_SERVICE:
        more = files_of(service, rules, root, place)
        if service == policy.IDENTITY:
            more |= {file: (master / file).read_text() for file in (keys.ISSUER_FILE, keys.XKEY_FILE)}
        keys.hand_over(master, service, root / service, more, nkey=service in rules.with_nkey)
    for owner, identities in (
        ("operator", (policy.OPERATOR,)),
        (infrastructure.PROVISIONER, (policy.PROVISIONER,)),
        ("upkeep", (policy.OPERATOR, policy.PROVISIONER)),
    ):
        for identity in identities:
            _write(root / owner / f"{identity}.nkey", keys.nkey_seed(master, identity))
    _write(root / "nats" / overlays.NKEYS_FILE, _public_nkeys(master, rules))
    _write(root / "redis" / "redis.conf", redis_configuration(redis_password(root)))
    return overlay


def secrets(root: Path, *, certificate: bool = True) -> Iterator[Object]:
    """The Secrets of a mesh. certificate: that of the brokers too, when no cert-manager makes it. Raises
    KeyFileError."""
    if not (root / ALL).is_dir():
        raise KeyFileError(
            f"{root} holds no keys: make them first, with `python -m bulkhead_infra.kubernetes keys {root}`"
        )
    for owner in overlays.SECRET_OWNERS:
        files = {path.name: path.read_text() for path in sorted((root / owner).iterdir()) if path.name[0] != "."}
        yield _secret(f"bulkhead-{objects.name_of(owner)}", files)
    if certificate:
        names = {"ca.crt": tls.CA_FILE, "tls.crt": tls.BROKER_FILE, "tls.key": tls.BROKER_KEY_FILE}
        files = {key: (root / ALL / "tls" / file).read_text() for key, file in names.items()}
        yield _secret(objects.TLS_SECRET, files) | {"type": "kubernetes.io/tls"}


def _overlay(path: Path, overlay: str) -> str:
    before = path.read_text().strip() if path.exists() else ""
    if overlay and overlay not in overlays.OVERLAYS:
        raise KeyFileError(f"no overlay {overlay}; there are {', '.join(overlays.OVERLAYS)}")
    if before and overlay and before != overlay:
        raise KeyFileError(
            f"these keys were made for the overlay {before}: two meshes must not share any; name another folder for "
            f"{overlay}, or leave it out"
        )
    keys.write_new(path, before or overlay or overlays.OVERLAYS[-1])
    return path.read_text().strip()


def _public_nkeys(master: Path, rules: policy.IdentityPolicy) -> str:
    """The variables of the accounts, and no other: the broker refuses what it does not use."""
    wanted = sorted(set(VARIABLE.findall(overlays.accounts_text(rules))))
    known = {f"NKEY_{name.upper()}": key for name, key in keys.public_nkeys(master, rules).items()}
    known |= dict(zip(overlays.LOGIN_VARIABLES, keys.login_keys(master), strict=True))
    return "".join(f"{name}: {known[name]}\n" for name in wanted)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    keys.replace_file(path, text)


def _secret(name: str, files: dict[str, str]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": objects.NAMESPACE, "labels": dict(objects.PART)},
        "type": "Opaque",
        "stringData": files,
    }

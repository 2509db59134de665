"""Tokens of service accounts as an API server mints them, and what it needs to show its keys. Pure, but for time.

In: pods. Out: signed tokens bound to a pod; the key set; who may read it, by the ClusterRoleBindings of the manifests.
"""

import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from bulkhead_infra.kubernetes.workloads import DISCOVERY
from bulkhead_infra.stages.manifests.fields import Object

ISSUER = "https://kubernetes.default.svc.cluster.local"
"""As a cluster has it that was made by kubeadm or kind."""
HOSTS = ("kubernetes.default.svc", "kubernetes.default", "kubernetes.default.svc.cluster.local")
RSA_BITS = 2048


class Issuer:
    """The signing key. `rotate` makes another; tokens of those before stay good."""

    def __init__(self) -> None:
        self._keys: dict[str, rsa.RSAPrivateKey] = {}
        self._uids: dict[str, str] = {}
        self.rotate()

    def rotate(self) -> None:
        """From now on another key signs."""
        self._keys[str(uuid.uuid4())] = rsa.generate_private_key(65537, RSA_BITS)

    def token(self, namespace: str, account: str, pod: str, audience: str, lasts_s: int) -> str:
        """A token of this service account. audience: "" for the API server itself."""
        now, kid = int(time.time()), list(self._keys)[-1]
        bound = {
            "namespace": namespace,
            "pod": {"name": pod, "uid": self._uid(pod)},
            "serviceaccount": {"name": account, "uid": self._uid(f"account {account}")},
        }
        claims = {
            "iss": ISSUER,
            "aud": [audience or ISSUER],
            "sub": f"system:serviceaccount:{namespace}:{account}",
            "iat": now,
            "nbf": now,
            "exp": now + lasts_s,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": bound,
        }
        return jwt.encode(claims, self._keys[kid], "RS256", {"kid": kid})

    def key_set(self) -> str:
        """The public keys (JWKS)."""
        rows: list[dict[str, Any]] = [
            {**jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig"}
            for kid, key in self._keys.items()
        ]
        return json.dumps({"keys": [{**row, "alg": "RS256"} for row in rows]})

    def _uid(self, name: str) -> str:
        return self._uids.setdefault(name, str(uuid.uuid4()))


def readers(objects: Sequence[Object]) -> list[str]:
    """Subjects that a ClusterRoleBinding lets read the key set."""
    return [
        f"system:serviceaccount:{subject['namespace']}:{subject['name']}"
        for one in objects
        if one["kind"] == "ClusterRoleBinding" and one["roleRef"]["name"] == DISCOVERY
        for subject in one["subjects"]
        if subject["kind"] == "ServiceAccount"
    ]

"""The key set is shown to whom a cluster would show it, and to nobody else."""

import json
from pathlib import Path

import pytest

from bulkhead_infra.stages.manifests import tokens
from bulkhead_infra.stages.manifests.api_server import refusal
from bulkhead_infra.stages.manifests.tokens import Issuer

NAMESPACE, READER = "bulkhead", "identity"


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    found = Issuer()
    (tmp_path / "keys.json").write_text(found.key_set())
    (tmp_path / "issuer").write_text(tokens.ISSUER)
    role = {"name": tokens.DISCOVERY}
    subject = {"kind": "ServiceAccount", "name": READER, "namespace": NAMESPACE}
    binding = {"kind": "ClusterRoleBinding", "roleRef": role, "subjects": [subject]}
    (tmp_path / "readers.json").write_text(json.dumps(tokens.readers([binding])))
    return found


def _asks(issuer: Issuer, folder: Path, account: str = READER, audience: str = "", lasts_s: int = 60) -> int:
    token = issuer.token(NAMESPACE, account, f"{account}-0", audience, lasts_s)
    return refusal(folder, f"Bearer {token}")[0]


def test_who_is_bound_to_the_role_reads_it(issuer: Issuer, tmp_path: Path) -> None:
    assert _asks(issuer, tmp_path) == 200
    assert _asks(issuer, tmp_path, "worker") == 403


def test_other_tokens_are_refused(issuer: Issuer, tmp_path: Path) -> None:
    assert _asks(issuer, tmp_path, audience="bulkhead-bus") == 401
    assert _asks(issuer, tmp_path, lasts_s=-1) == 401
    assert _asks(Issuer(), tmp_path) == 401
    assert refusal(tmp_path, "")[0] == refusal(tmp_path, "Bearer none")[0] == 401


def test_tokens_of_a_key_before_stay_good(issuer: Issuer, tmp_path: Path) -> None:
    token = issuer.token(NAMESPACE, READER, "identity-0", "", 60)
    issuer.rotate()
    (tmp_path / "keys.json").write_text(issuer.key_set())
    assert refusal(tmp_path, f"Bearer {token}")[0] == 200
    assert _asks(issuer, tmp_path) == 200

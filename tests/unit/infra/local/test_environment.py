"""What a local mesh tells its processes about decision logic: all are of one program, so the newest that all have."""

from pathlib import Path

import pytest

from bulkhead_infra.composition import newest_logic
from bulkhead_infra.local.environment import RunFacts, environ_of, resolve_paths
from bulkhead_infra.local.rundir import RunDir
from bulkhead_services.planner.app import LOGICS

FACTS = RunFacts("nats://x", "redis://x", {"gateway": 0}, "", Path("tenants.yaml"), 1.0, {})


def logic(service, tmp_path, **outer):
    return environ_of(service, 0, RunDir(tmp_path), FACTS, outer, {}).get("BULKHEAD_LOGIC")


def test_the_gateway_starts_tasks_under_the_newest_logic_unless_told_otherwise(tmp_path):
    assert newest_logic() == max(LOGICS) == 1
    assert logic("gateway", tmp_path) == "1"
    assert logic("gateway", tmp_path, BULKHEAD_LOGIC="7") == "7"


@pytest.mark.parametrize("service", ["planner", "worker", "budget"])
def test_nobody_else_is_told(tmp_path, service):
    assert logic(service, tmp_path) is None


def test_paths_mean_what_they_mean_to_who_starts_the_mesh(tmp_path, monkeypatch):
    """Its processes run in another folder."""
    monkeypatch.chdir(tmp_path)
    given = {
        "PYTHONPATH": ".:/opt/packs",
        "BULKHEAD_JWT_JWKS_FILE": "keys/jwks.json",
        "SSL_CERT_FILE": "ca.pem",
        "BULKHEAD_PRICES_FILE": "",
        "BULKHEAD_MODEL": "a_model",
    }
    assert resolve_paths(given) == given | {
        "PYTHONPATH": f"{tmp_path}:/opt/packs",
        "BULKHEAD_JWT_JWKS_FILE": f"{tmp_path}/keys/jwks.json",
        "SSL_CERT_FILE": f"{tmp_path}/ca.pem",
    }
    assert environ_of("signer", 0, RunDir(tmp_path), FACTS, resolve_paths(given), {})["PYTHONPATH"].startswith(
        str(tmp_path)
    )

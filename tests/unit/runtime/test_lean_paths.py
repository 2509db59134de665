"""Short ways that must lead where the long ones do: tokens written without PyJWT, spans where nothing is recorded."""

import json

import jwt
import pytest
from opentelemetry import trace as otel

from bulkhead.grants import GrantRefused, Signer, Verifier, new_signing_seed, public_of
from bulkhead.telemetry import trace
from bulkhead_contracts.grant import StepGrant, TaskGrant
from bulkhead_contracts.task import TaskLimits

SEEDS = {name: new_signing_seed() for name in ("signer", "planner")}
TASK = TaskGrant(tenant="demo", task="t1", actor="Zoë", tools=("calculate",), document_scopes=(), limits=TaskLimits(),
                 day_cost_usd_micros=1, day_tokens=1, expires_unix_ms=10)  # fmt: skip
STEP = StepGrant(tenant="demo", task="t1", step_id="a", attempt=1, plan_version=1, tools=("calculate",),
                 expires_unix_ms=10)  # fmt: skip


def test_a_token_is_what_pyjwt_writes():
    signer = Signer("planner", SEEDS["planner"])
    for grant, parent in ((TASK, ""), (STEP, "p.q.r")):
        claims = {"grant": json.loads(grant.model_dump_json())} | ({"parent": parent} if parent else {})
        assert signer.grant(grant, parent) == jwt.encode(claims, signer._key, "EdDSA", {"kid": "planner"})


def test_a_token_is_believed_and_a_changed_one_is_not():
    verifier = Verifier({name: public_of(seed) for name, seed in SEEDS.items()})
    top = Signer("signer", SEEDS["signer"]).grant(TASK)
    token = Signer("planner", SEEDS["planner"]).grant(STEP, parent=top)
    authority = verifier.authority(token, tenant="demo", task="t1", now_unix_ms=1)
    assert (authority.task, authority.step) == (TASK, STEP)
    head, claims, signature = token.split(".")
    with pytest.raises(GrantRefused):
        verifier.authority(f"{head}.{claims}.{signature[:-4]}AAAA", tenant="demo", task="t1", now_unix_ms=1)


def test_where_nothing_is_recorded_the_parent_is_still_passed_on(monkeypatch):
    # Another test of this process may have set a provider, for good.
    monkeypatch.setattr(otel, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_tracer", otel.get_tracer("bulkhead"))
    assert isinstance(otel.get_tracer_provider(), otel.ProxyTracerProvider)
    parent = f"00-{'1' * 32}-{'2' * 16}-01"
    with trace.span("process", parent):
        assert trace.current_traceparent() == parent
        with trace.span("within"):
            assert trace.current_traceparent() == parent
    with trace.span("alone") as alone:
        assert trace.current_traceparent() == "" and not alone.is_recording()

"""Short ways that must lead where the long ones do: tokens written without PyJWT, spans where nothing is recorded,
states that are changed, ids, bodies, and what is made before the first word of a decision is said."""

import dataclasses
import hmac
import json

import jwt
import pytest
from opentelemetry import trace as otel

from bulkhead import flow
from bulkhead.bus.port import PublishRefused
from bulkhead.flow import Send, SetTimer, Transition
from bulkhead.grants import GrantRefused, Signer, Verifier, new_signing_seed, parent_sha256, public_of
from bulkhead.runtime.decider import fold
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead.telemetry import trace
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts import envelope
from bulkhead_contracts.grant import StepGrant, TaskGrant
from bulkhead_contracts.result import Result
from bulkhead_contracts.step import StepFinished
from bulkhead_services.checker.state import CheckerState as CheckerState
from bulkhead_services.planner.state import PlannerState as PlannerState
from bulkhead_services.worker.state import WorkerState as WorkerState
from tests.eventually import until
from tests.samples import sample
from tests.unit.bulkhead.runtime.consume import test_loop as shells

SEEDS = {name: new_signing_seed() for name in ("signer", "planner")}
TASK = sample(TaskGrant, actor="Zoë", tools=("calculate",), expires_unix_ms=10)
STEP = StepGrant(
    tenant="demo", task="t1", step_id="a", attempt=1, plan_version=1, tools=("calculate",), expires_unix_ms=10
)


def test_a_token_is_what_pyjwt_writes():
    signer = Signer("planner", SEEDS["planner"])
    for grant, parent in ((TASK, ""), (STEP, "p.q.r")):
        claims = {"grant": json.loads(grant.model_dump_json())} | ({"parent": parent} if parent else {})
        if parent:
            claims["grant"]["parent_sha256"] = parent_sha256(parent)
        assert signer.sign_grant(grant, parent) == jwt.encode(claims, signer._key, "EdDSA", {"kid": "planner"})


def test_a_token_is_believed_and_a_changed_one_is_not():
    verifier = Verifier({name: public_of(seed) for name, seed in SEEDS.items()})
    top = Signer("signer", SEEDS["signer"]).sign_grant(TASK)
    token = Signer("planner", SEEDS["planner"]).sign_grant(STEP, parent=top)
    authority = verifier.verify_authority(token, tenant="demo", task="t1", now_unix_ms=1)
    assert authority.task == TASK
    assert authority.step == STEP.model_copy(update={"parent_sha256": parent_sha256(top)})
    head, claims, signature = token.split(".")
    with pytest.raises(GrantRefused):
        verifier.verify_authority(f"{head}.{claims}.{signature[:-4]}AAAA", tenant="demo", task="t1", now_unix_ms=1)


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


@pytest.mark.parametrize("state", [CheckerState(), PlannerState(), WorkerState(), SetTimer("k", 1)])
def test_a_changed_state_is_what_dataclasses_makes_of_it(state):
    for one in dataclasses.fields(state):
        assert flow.replace(state, **{one.name: "x"}) == dataclasses.replace(state, **{one.name: "x"}) != state
    assert flow.replace(state) == state
    with pytest.raises(KeyError):
        flow.replace(state, unknown=1)


def test_a_class_that_checks_itself_or_has_no_slots_is_not_changed_behind_its_back():
    @dataclasses.dataclass(frozen=True, slots=True)
    class Checks:
        one: int
        two: int

        def __post_init__(self):
            assert self.one < self.two

    bare = dataclasses.make_dataclass("Bare", ["one", "two"], frozen=True)
    for kind in (Checks, bare):
        with pytest.raises(TypeError, match="with slots"):
            flow.replace(kind(1, 2), two=0)


def test_an_id_is_the_hmac_of_its_parts_and_a_body_its_json():
    for key in (b"k" * 32, b"l" * 100):
        for _ in range(2):
            assert envelope.message_id(key, "a", "b") == hmac.digest(key, b"a\nb", "sha256").hex()[:32]
    body = StepFinished(step_id="s", attempt=1, plan_version=1, result=Result(summary='Zoë \u2028 "x"'))
    assert body.encode() == body.model_dump_json().encode()


class Talking(shells.Counting):
    """A decider that sets a timer, answers twice and sets another timer."""

    def decide(self, state, message):
        a, b = (StepFinished(step_id=name, attempt=1, plan_version=1, result=Result()) for name in "ab")
        return Transition(state, (SetTimer("k", 2**50), Send("planner", a), Send("planner", b), SetTimer("l", 2**50)))


async def _heard(monkeypatch, refuse):
    """What a Talking worker does with one message, in order. refuse: the first word is, once."""
    done, seal, post, set_timer = [], fold.seal, Publisher.post, Publisher.set_timer

    def sealing(service, cause, index, *rest):
        done.append(f"seal {index}")
        return seal(service, cause, index, *rest)

    async def posting(self, to, body, *rest, **more):
        if self.service == "worker":
            done.append(f"say {body.step_id}")
            if refuse and len(done) == 2:
                raise PublishRefused("not now")
        return await post(self, to, body, *rest, **more)

    async def setting(self, key, *rest, **more):
        done.append(f"set {key}")
        return await set_timer(self, key, *rest, **more)

    monkeypatch.setattr(fold, "seal", sealing)
    monkeypatch.setattr(Publisher, "post", posting)
    monkeypatch.setattr(Publisher, "set_timer", setting)
    async with MemoryMesh({"worker": lambda c: {1: Talking()}}) as mesh:
        await shells.say(mesh, shells.assigned())
        await until(lambda: "set l" in done)
    return done


async def test_the_first_word_is_said_before_anything_is_made_for_the_others_and_timers_are_last(monkeypatch):
    assert await _heard(monkeypatch, refuse=False) == [
        "seal 1",
        "say a",
        "seal 2",
        "say b",
        "seal 0",
        "set k",
        "seal 3",
        "set l",
    ]


async def test_when_the_first_word_is_refused_nothing_else_is_said_before_it_comes_again(monkeypatch):
    assert (await _heard(monkeypatch, refuse=True))[:4] == ["seal 1", "say a", "seal 1", "say a"]

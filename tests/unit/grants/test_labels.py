"""Provenance labels are verified before a decider sees them, and one that does not verify says so from then on."""

from typing import Any

import pytest

from bulkhead.flow import Decider, InboxMessage, Send, Transition
from bulkhead.grants import Signer, Verifier, new_signing_seed, public_of
from bulkhead.grants.labels import verify_labels, verify_plan_word
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts import catalog, subjects
from bulkhead_contracts.approval import ApprovalGrant
from bulkhead_contracts.plan import Plan, PlanDecided, PlanStep
from bulkhead_contracts.result import ContentRef, Label, Result
from bulkhead_contracts.step import Evidence, StepAssigned, StepFinished, StepInput, StepProposed
from bulkhead_contracts.tool import ToolCallReplied
from tests.eventually import until

SEEDS = {name: new_signing_seed() for name in ("rag", "tool_executor", "worker", "gateway", "signer")}
VERIFIER = Verifier({name: public_of(seed) for name, seed in SEEDS.items()})
REF = ContentRef(author="rag", sha256="a" * 64, size_bytes=1)
PLACE = ("demo", "t1")
STEP = PlanStep(id="s", title="", instruction="i")
PLAIN = Label(sha256=REF.sha256, kind="passage", source="fares.md", trust="user", observed_by="rag")


def signed(label: Label, by: str = "rag") -> Label:
    return Signer(by, SEEDS[by]).sign_label(label, *PLACE)


def proposed(label: Label, *, content: ContentRef = REF) -> StepProposed:
    result = Result(provenance=(label,))
    return StepProposed(
        step=STEP,
        attempt=1,
        plan_version=1,
        objective=REF,
        result=result,
        evidence=(Evidence(content=content, label=label),),
        inputs=(StepInput(step_id="a", result=result),),
        deadline_unix_ms=1,
    )


def labels(body: StepProposed) -> list[Label]:
    return [body.result.provenance[0], body.evidence[0].label, body.inputs[0].result.provenance[0]]


def test_a_body_whose_labels_verify_is_left_as_it_is() -> None:
    body = proposed(signed(PLAIN))
    assert verify_labels(body, "worker", *PLACE, VERIFIER) is body


@pytest.mark.parametrize(
    "label",
    [
        PLAIN,
        PLAIN.model_copy(update={"signature": "x" * 86}),
        signed(PLAIN).model_copy(update={"source": "contract.pdf"}),
        signed(PLAIN).model_copy(update={"observed_by": "tool_executor"}),
        signed(PLAIN.model_copy(update={"observed_by": "nobody"})),
        signed(PLAIN.model_copy(update={"observed_by": "worker"}), by="worker"),
        Signer("rag", SEEDS["rag"]).sign_label(PLAIN, "demo", "t2"),
        Signer("rag", SEEDS["rag"]).sign_label(PLAIN, "acme", "t1"),
        signed(PLAIN.model_copy(update={"signed_by": "gateway"})),
    ],
    ids=[
        "unsigned",
        "nonsense",
        "changed",
        "of another",
        "unknown",
        "of a decider",
        "of another task",
        "of another tenant",
        "handed on by nobody",
    ],
)
def test_a_label_that_was_handed_on_and_does_not_verify_is_untrusted_and_says_so(label: Label) -> None:
    once = verify_labels(proposed(label), "checker", *PLACE, VERIFIER)
    for seen in labels(once):
        assert (seen.source, seen.trust, seen.signature) == (f"unverified: {label.source}", "untrusted", "")
    assert verify_labels(once, "checker", *PLACE, VERIFIER) == once, "it is told once, however often it is handed on"


def test_the_gateway_hands_a_label_on_to_the_task_that_forks_its_own() -> None:
    handed_on = signed(PLAIN.model_copy(update={"signed_by": "gateway"}), by="gateway")
    body = proposed(handed_on)
    assert verify_labels(body, "worker", *PLACE, VERIFIER) is body and handed_on.observed_by == "rag"


def test_a_good_label_of_another_content_is_no_evidence() -> None:
    other = REF.model_copy(update={"sha256": "b" * 64})
    body = verify_labels(proposed(signed(PLAIN), content=other), "worker", *PLACE, VERIFIER)
    assert [one.source for one in labels(body)] == ["fares.md", "unverified: fares.md", "fares.md"]


def test_the_broker_vouches_for_a_label_that_comes_straight_from_its_observer() -> None:
    label = PLAIN.model_copy(update={"observed_by": "tool_executor", "kind": "tool_result"})
    body = ToolCallReplied(call_id="c", step_id="s", outcome="succeeded", content=REF, provenance=(label,))
    assert verify_labels(body, "tool_executor", *PLACE, VERIFIER) is body
    assert verify_labels(body, "rag", *PLACE, VERIFIER).provenance[0].source == "unverified: fares.md"


class Repeats(Decider[int]):
    """A planner's worker that hands on what its assignment rests on."""

    service = "worker"
    opening = frozenset({StepAssigned})

    def initial_state(self) -> int:
        return 0

    def wanted_contents(self, body: object) -> tuple[ContentRef, ...]:
        return ()

    def has_ended(self, state: int) -> bool:
        return False

    def decide(self, state: int, message: InboxMessage) -> Transition[int]:
        body = message.body
        assert isinstance(body, StepAssigned)
        result = body.inputs[0].result
        return Transition(1, (Send("planner", StepFinished(step_id="s", attempt=1, plan_version=1, result=result)),))


async def test_a_decider_sees_a_forged_label_as_unverified() -> None:
    async with MemoryMesh({"worker": lambda context: {1: Repeats()}}) as mesh:
        good = mesh.context("rag").signer.sign_label(PLAIN, *PLACE)
        forged = good.model_copy(update={"sha256": "b" * 64})
        body = StepAssigned(
            step=STEP,
            attempt=1,
            plan_version=1,
            objective=REF,
            inputs=(StepInput(step_id="a", result=Result(provenance=(good, forged))),),
            deadline_unix_ms=2**50,
        )
        await mesh.context("planner").publisher.send("worker", body, tenant="demo", task="t1", cause="", index=0)
        subject = subjects.task_filter("planner", "demo", "t1")
        found = await until(lambda: mesh.messages("INBOX_PLANNER", subject))
        said = catalog.decode_body(found[0].ce_type, found[0].body)
        assert isinstance(said, StepFinished)
        assert said.result.provenance == (
            good,
            forged.model_copy(update={"source": "unverified: fares.md", "trust": "untrusted", "signature": ""}),
        )


WORD = PlanDecided(sha256="b" * 64, decision="approve", plan=Plan(steps=(STEP,)), person="ann", role="approver")


def plan_word(body: PlanDecided = WORD, by: str = "signer", **changes: Any) -> PlanDecided:
    """The body with the token of this service for the word on it, but for these changes."""
    claims = {
        "tenant": PLACE[0],
        "task": PLACE[1],
        "approval_id": body.sha256,
        "arguments_sha256": body.signed_sha256,
        "decision": "granted",
        "person": body.person,
        "role": body.role,
        "via": "api_key",
        "decided_unix_ms": 1,
        **changes,
    }
    token = Signer(by, SEEDS[by]).sign_approval(ApprovalGrant.model_validate(claims))
    return body.model_copy(update={"token": token})


def test_a_word_on_a_plan_that_the_signer_signed_is_left_as_it_is() -> None:
    body = plan_word()
    assert verify_plan_word(body, *PLACE, VERIFIER) is body
    assert PlanDecided.model_validate_json(body.encode()).signed_sha256 == WORD.signed_sha256


@pytest.mark.parametrize(
    "body",
    [
        plan_word(by="gateway"),
        plan_word(kind="resolution"),
        plan_word(task="t2"),
        plan_word(approval_id="c" * 64),
        plan_word(person="bob"),
        plan_word(role="operator"),
        plan_word().model_copy(update={"decision": "reject"}),
        plan_word().model_copy(update={"plan": None}),
        plan_word().model_copy(update={"token": "x.y.z"}),
    ],
    ids=[
        "of another",
        "on a write",
        "of a task",
        "on a plan",
        "of a person",
        "of a role",
        "turned",
        "edited",
        "forged",
    ],
)
def test_a_word_on_a_plan_that_the_signer_did_not_sign_loses_its_token(body: PlanDecided) -> None:
    assert verify_plan_word(body, *PLACE, VERIFIER) == body.model_copy(update={"token": ""})

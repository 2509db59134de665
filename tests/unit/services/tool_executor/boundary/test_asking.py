"""What people are asked fits one message, whatever the arguments and the reasons are."""

import asyncio
import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from bulkhead.policy.ruling import CallProposal, CallRuling, TaintFinding
from bulkhead.runtime.errors import JobRefused
from bulkhead_contracts import bounds
from bulkhead_contracts.grant import TaskGrant
from bulkhead_contracts.plan import ASK_PERSON, ApprovalQuestion
from bulkhead_contracts.tool import ToolCallRequested, ToolSpec
from bulkhead_services.tool_executor.boundary.approvals import _refusal_reason, canonicalize_and_digest
from bulkhead_services.tool_executor.boundary.gate import MAX_INLINE_BYTES, Gate
from tests.open_policy import permitted
from tests.samples import sample
from tests.unit.services.tool_executor.conftest import Desk, open_gate

WIDE = "\U00010348"
"""A letter of four bytes, which is shown as it is."""


def test_the_largest_question_fits_a_message() -> None:
    name = f"/{WIDE * 3_000}"
    arguments = {name: WIDE * 900}
    found = tuple(
        TaintFinding(f"{name}{number}", WIDE * 900, (), WIDE * 2_000) for number in range(bounds.MAX_FINDINGS)
    )
    ruling = CallRuling(
        "ask", "writes", "c" * 64, "high", reasons=tuple(WIDE * 2_000 for _ in range(32)), findings=found
    )
    task = sample(TaskGrant, expires_unix_ms=2**50)
    tool = ToolSpec(name="pay", description="", parameters_json="{}", effect="write")
    request = sample(ToolCallRequested, tool="pay", deadline_unix_ms=1)
    gate = Gate(SimpleNamespace(service="tool_executor", clock=lambda: 1), permitted, lambda _: "none", 60_000)  # type: ignore[arg-type]
    job = SimpleNamespace(request=request, authority=SimpleNamespace(task=task))
    said = canonicalize_and_digest("acme", "t1", "pay", arguments)
    asked = gate._approval_request(job, CallProposal(task, None, tool, arguments), ruling, "a1", said)  # type: ignore[arg-type]
    assert len(asked.why) == bounds.MAX_FINDINGS and len(asked.encode()) < bounds.MAX_MESSAGE_BYTES // 2


@pytest.mark.parametrize(("role", "roles", "counts"), [("approver", (), True), ("approver", ("operator",), False)])
def test_a_word_counts_of_the_roles_that_the_question_names(role: str, roles: tuple[str, ...], counts: bool) -> None:
    request: Any = SimpleNamespace(roles=roles, four_eyes=False, expires_unix_ms=10, arguments_sha256="a")
    grant: Any = SimpleNamespace(role=role, arguments_sha256="a", decided_unix_ms=1)
    reason = _refusal_reason(request, grant, 1)
    assert (reason == "") == counts and (counts or reason == "approver may not decide about it; operator may")


ASKED = {"question": "Write to Ann?", "expires_ms": 60_000, "roles": ["operator"], "results": ["find: Ann"]}


@pytest.mark.parametrize(
    ("changes", "is_other"),
    [
        ({}, False),
        ({"results": []}, False),
        ({"question": "Write to Bob?"}, True),
        ({"roles": None}, True),
        ({"roles": ["approver", "operator"]}, True),
        ({"expires_ms": 60_001}, True),
        ({"expires_ms": None}, True),
    ],
)
async def test_a_step_asks_its_plans_question_and_no_other(desk: Desk, changes: dict[str, Any], is_other: bool) -> None:
    question = ApprovalQuestion(text="Write to Ann?", roles=("operator",), expires_ms=60_000)
    arguments = {name: value for name, value in (ASKED | changes).items() if value is not None}
    job = desk.job(ASK_PERSON, arguments)
    assert job.authority.step is not None
    step = job.authority.step.model_copy(update={"question_sha256": question.signed_sha256})
    job = replace(job, authority=replace(job.authority, step=step))
    tool: Any = SimpleNamespace(spec=ToolSpec(name=ASK_PERSON, description="", parameters_json="{}", effect="write"))
    if not is_other:
        await open_gate().admit_call(job, tool, arguments)
        return
    with pytest.raises(JobRefused) as refused:
        await open_gate().admit_call(job, tool, arguments)
    assert refused.value.failure.code == "other_question" and refused.value.failure.hint


async def test_long_arguments_are_ruled_on_one_after_the_other_while_short_ones_go_on() -> None:
    goes_on, at_work = threading.Event(), 0

    def rule(proposal: CallProposal) -> CallRuling:
        nonlocal at_work
        if "long" in proposal.arguments:
            at_work += 1
            assert at_work == 1 and goes_on.wait(20)
            at_work -= 1
        return CallRuling("permit", "writes", "c" * 64)

    task = sample(TaskGrant, expires_unix_ms=2**50)
    tool = ToolSpec(name="pay", description="", parameters_json="{}", effect="write")
    gate = Gate(SimpleNamespace(service="tool_executor", clock=lambda: 1), rule, lambda _: "none", 60_000)  # type: ignore[arg-type]
    long, short = CallProposal(task, None, tool, {"long": 1}), CallProposal(task, None, tool, {})
    rulings = [asyncio.create_task(gate._rule_on(long, MAX_INLINE_BYTES + 1)) for _ in range(3)]
    assert (await gate._rule_on(short, 2)).effect == "permit" and not any(task.done() for task in rulings)
    goes_on.set()
    assert [ruling.effect for ruling in await asyncio.gather(*rulings)] == ["permit"] * 3

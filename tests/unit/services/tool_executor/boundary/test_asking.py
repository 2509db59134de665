"""What people are asked fits one message, whatever the arguments and the reasons are."""

from types import SimpleNamespace

from bulkhead.policy.ruling import CallProposal, CallRuling, TaintFinding
from bulkhead_contracts import bounds
from bulkhead_contracts.grant import TaskGrant
from bulkhead_contracts.tool import ToolCallRequested, ToolSpec
from bulkhead_services.tool_executor.boundary.approvals import canonicalize_and_digest
from bulkhead_services.tool_executor.boundary.gate import Gate
from tests.open_policy import permitted
from tests.samples import sample

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

"""The timeline tells how a call of a tool ended: its failure by name, what its result lacks and holds."""

import pytest

from bulkhead.journal.timeline import _told
from bulkhead_contracts.result import Completeness, Failure, Omission
from bulkhead_contracts.tool import ToolCallReplied

CUT = Completeness.missing(Omission(reason="truncated", what="output of x"), Omission(reason="failed_part", what="y"))


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ({"outcome": "succeeded"}, "succeeded"),
        ({"outcome": "failed", "failure": Failure.of("slow_answer", "it")}, "failed slow_answer"),
        ({"outcome": "uncertain", "failure": Failure.of("error_body", "it")}, "uncertain error_body"),
        (
            {"outcome": "succeeded", "completeness": CUT, "sensitive": ("card", "email")},
            "succeeded incomplete: failed_part, truncated holds card, email",
        ),
    ],
)
def test_a_reply_of_a_tool_on_one_line(reply: dict, told: str) -> None:
    assert _told(ToolCallReplied(call_id="c", step_id="s", **reply)) == told

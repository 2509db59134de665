"""Parts of a remote agent's answer: read once, bounded by number and size, told where they are cut."""

import time

import pytest
from a2a.types import Artifact, Part, StreamResponse, TaskArtifactUpdateEvent, TaskState
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value

from bulkhead.tools.agents_file import AgentTool
from bulkhead.tools.api import Done
from bulkhead_contracts import bounds
from bulkhead_services.tool_executor.a2a.answers import AgentAnswerFold, PartsText

DATA = Part(data=ParseDict({"sum": 3}, Value()))


def artifact(*parts: Part, append: bool = True) -> StreamResponse:
    shown = Artifact(artifact_id="a", parts=parts)
    return StreamResponse(artifact_update=TaskArtifactUpdateEvent(task_id="t", artifact=shown, append=append))


@pytest.mark.parametrize("part", [Part(text="x"), DATA, Part(raw=b"x", media_type="text/plain"), Part(raw=b"x")])
def test_no_more_parts_are_read_than_an_answer_may_have(part: Part) -> None:
    words = PartsText.from_parts([part] * (bounds.MAX_AGENT_PARTS + 1))
    assert words.cut and len(words.render_text()) <= bounds.MAX_TOOL_OUTPUT_BYTES + bounds.MAX_AGENT_PARTS
    assert len(words.omitted) <= bounds.MAX_OMISSIONS
    assert not PartsText.from_parts([part]).cut


def test_a_long_text_is_cut_at_the_bound_of_an_answer_and_the_rest_is_not_kept() -> None:
    words = PartsText.from_parts([Part(text="x" * bounds.MAX_TOOL_OUTPUT_BYTES)])
    assert not words.cut
    words.append_parts([Part(text="y")])
    assert words.cut and words.render_text() == "x" * bounds.MAX_TOOL_OUTPUT_BYTES


def test_an_agent_that_streams_tiny_parts_costs_each_of_them_once(agent_tool: AgentTool) -> None:
    heard, began = AgentAnswerFold(), time.process_time()
    for _ in range(6_000):
        heard.apply_event(artifact(*[Part(text="x")] * 50))
    heard.state = TaskState.TASK_STATE_COMPLETED
    said = heard.to_outcome(agent_tool)
    assert time.process_time() - began < 5, "the parts kept are counted anew at each event"
    assert isinstance(said, Done) and said.truncated and len(said.text) == bounds.MAX_AGENT_PARTS


def test_texts_that_adjoin_are_one_over_events_and_others_stand_below(agent_tool: AgentTool) -> None:
    heard = AgentAnswerFold()
    for event in (artifact(Part(text="a")), artifact(Part(text="b"), DATA), artifact(Part(text="c"))):
        heard.apply_event(event)
    heard.state = TaskState.TASK_STATE_COMPLETED
    assert heard.to_outcome(agent_tool) == Done('ab\n{"sum": 3.0}\nc')

"""What planted bugs showed to be untested: provenance on its way through a step, the exact bound of calls."""

import pytest

from bulkhead_contracts import bounds
from bulkhead_contracts.model import ModelCallRequested
from bulkhead_contracts.result import Completeness, Label, Omission, Result
from bulkhead_contracts.retrieval import RetrievalRequested
from bulkhead_contracts.step import StepFinished, StepInput, StepProposed
from bulkhead_contracts.tool import ToolCallRequested
from bulkhead_services.worker.core import Worker
from tests.playbook import Playbook
from tests.unit.services.worker.test_playbook import assign, computes, finds, thinks

SOURCE = Label(sha256="ab" * 32, kind="document", source="old rules", observed_by="rag")
LACKS = Completeness.with_omissions(Omission(reason="truncated", what="page 2"))


@pytest.fixture
def play() -> Playbook:
    return Playbook(Worker())


def weak_input(play: Playbook) -> StepInput:
    result = Result(
        content=play.add_content("about 40"),
        standing="degraded",
        standing_reason="fallback model",
        completeness=LACKS,
        provenance=(SOURCE,),
    )
    return StepInput(step_id="s0", result=result)


def test_everything_that_fed_a_result_stands_in_its_provenance(play):
    assign(play, inputs=(weak_input(play),))
    thinks(play, calls=(("search_documents", '{"query": "fee"}'), ("calculate", '{"expression": "1+1"}')))
    search, calc = play.only_output(RetrievalRequested).call_id, play.only_output(ToolCallRequested).call_id
    finds(play, search)
    computes(play, calc)
    thinks(play, text="The fee is 40.")
    kinds = [one.kind for one in play.only_output(StepProposed).result.provenance]
    assert sorted(kinds) == ["document", "passage", "tool_result"]


def test_a_step_may_make_as_many_calls_as_its_limit_says(play):
    assign(play)
    for _ in range(bounds.MAX_CALLS_PER_STEP // bounds.MAX_CALLS_PER_TURN):
        thinks(play, calls=(("calculate", "{}"),) * bounds.MAX_CALLS_PER_TURN)
        for call in play.outputs_of(ToolCallRequested):
            computes(play, call.call_id)
        play.says(ModelCallRequested)
    thinks(play, calls=(("calculate", "{}"),))
    assert play.only_output(StepFinished).failure.code == "call_cap"


def test_labels_beyond_the_bound_are_told_as_missing(play):
    def rest(start: int) -> tuple[Label, ...]:
        rows = range(start, start + 200)
        return tuple(SOURCE.model_copy(update={"sha256": f"{number:064x}"}) for number in rows)

    def inputs(*starts: int) -> tuple[StepInput, ...]:
        texts = [(start, play.add_content(f"about {start}")) for start in starts]
        return tuple(StepInput(step_id=f"s{n}", result=Result(content=c, provenance=rest(n))) for n, c in texts)

    assign(play, inputs=inputs(0, 50))
    thinks(play, text="The fee is 40.")
    whole = play.only_output(StepProposed).result
    assert whole.completeness.complete and len(whole.provenance) == 250
    other = Playbook(Worker())
    play = other
    assign(play, inputs=inputs(0, 100))
    thinks(play, text="The fee is 40.")
    cut = play.only_output(StepProposed).result
    assert len(cut.provenance) == bounds.MAX_LABELS
    assert [row.what for row in cut.completeness.omissions] == ["labels of provenance beyond 256"]

"""Which call of a tool gave the content that an answer cites: the task's messages in the journal are read.

In: CitedCallRequested (rpc, from the gateway, which knows that the asker may read this task). Out: CitedCallReplied.
"""

from collections.abc import Iterable

from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead_contracts.result import Failure
from bulkhead_contracts.tool import CitedCall, CitedCallReplied, CitedCallRequested, ToolCallReplied, ToolCallRequested
from bulkhead_services.budget.queries.uncertain_writes import TaskFact, TaskJournal


def find_cited_call(task_facts: Iterable[TaskFact], sha256: str) -> CitedCall | None:
    """The first call whose reply has this content."""
    requests: dict[str, TaskFact] = {}
    for fact in task_facts:
        body = fact.body
        if isinstance(body, ToolCallRequested):
            requests.setdefault(body.call_id, fact)
        elif isinstance(body, ToolCallReplied) and body.content is not None and body.content.sha256 == sha256:
            request = requests.get(body.call_id)
            if request is not None and isinstance(call := request.body, ToolCallRequested):
                same = {name: getattr(call, name) for name in ("step_id", "attempt", "tool", "arguments_json")}
                return CitedCall(asked_unix_ms=request.at_unix_ms, **same)
    return None


class CitedCallQuery:
    """Answers from the journal."""

    def __init__(self, journal: TaskJournal) -> None:
        self._journal = journal

    async def answer_cited_call(self, message: ReceivedMessage) -> CitedCallReplied:
        """Look through the journal of the asker's task."""
        assert isinstance(message.body, CitedCallRequested)
        task_facts = await self._journal.read_facts(message)
        if isinstance(task_facts, Failure):
            return CitedCallReplied(failure=task_facts)
        return CitedCallReplied(call=find_cited_call(task_facts, message.body.sha256))

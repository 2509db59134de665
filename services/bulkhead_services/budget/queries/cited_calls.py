"""Which call of a tool gave the content that an answer cites: the task's messages in the journal are read.

In: CitedCallRequested (rpc, from the gateway, which knows that the asker may read this task). Out: CitedCallReplied.
"""

from collections.abc import Iterable

from bulkhead.runtime.edge.protocol import Received
from bulkhead_contracts.result import Failure
from bulkhead_contracts.tool import CitedCall, CitedCallReplied, CitedCallRequested, ToolCallReplied, ToolCallRequested
from bulkhead_services.budget.queries.uncertain_writes import Fact, TaskJournal


def cited(told: Iterable[Fact], sha256: str) -> CitedCall | None:
    """The first call whose reply has this content."""
    asked: dict[str, Fact] = {}
    for fact in told:
        body = fact.body
        if isinstance(body, ToolCallRequested):
            asked.setdefault(body.call_id, fact)
        elif isinstance(body, ToolCallReplied) and body.content is not None and body.content.sha256 == sha256:
            found = asked.get(body.call_id)
            if found is not None and isinstance(call := found.body, ToolCallRequested):
                same = {name: getattr(call, name) for name in ("step_id", "attempt", "tool", "arguments_json")}
                return CitedCall(asked_unix_ms=found.at_unix_ms, **same)
    return None


class CallBook:
    """Answers from the journal."""

    def __init__(self, journal: TaskJournal) -> None:
        self._journal = journal

    async def answer(self, message: Received) -> CitedCallReplied:
        """Look through the journal of the asker's task."""
        assert isinstance(message.body, CitedCallRequested)
        told = await self._journal.facts(message)
        if isinstance(told, Failure):
            return CitedCallReplied(failure=told)
        return CitedCallReplied(call=cited(told, message.body.sha256))

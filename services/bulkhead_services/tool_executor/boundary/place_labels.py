"""Labels of places: which sources had been shown to the agents that wrote there, over tasks and restarts.

In: a call. Out: the sources that its places carry; on record, those of the places that it writes into. A label grows
and is never taken away, whoever writes there next. Kept in tenants alone whose rules ask for it.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from bulkhead.bus.port import WrongLastSequence
from bulkhead.policy.places import carried_sources, named_places, written_places
from bulkhead.runtime.context import Context
from bulkhead.runtime.errors import HandBack
from bulkhead_contracts import envelope, subjects
from bulkhead_contracts.tool import ToolSpec
from bulkhead_services.tool_executor.boundary.approvals import CONFLICT_RETRY_S


class PlaceLabels:
    """The records."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def find_sources(self, tenant: str, arguments: Mapping[str, Any]) -> tuple[str, ...]:
        """Sources that the places carry which a call names."""
        labels = await asyncio.gather(*(self._read_label(tenant, place) for place in named_places(arguments)))
        return carried_sources(source for sources, _ in labels for source in sources)

    async def add_sources(
        self, tenant: str, tool: ToolSpec, arguments: Mapping[str, Any], shown: Sequence[str]
    ) -> None:
        """Label the places that a call writes into with what its agent was shown. Raises HandBack when another call
        labels one of them at this moment."""
        if not (sources := carried_sources(shown)):
            return
        for place in written_places(tool, arguments):
            present, sequence = await self._read_label(tenant, place)
            joined = carried_sources((*present, *sources))
            if joined != present:
                await self._write_label(self._subject(tenant, place), joined, sequence)

    async def _read_label(self, tenant: str, place: str) -> tuple[tuple[str, ...], int]:
        stream = subjects.records_stream(self._context.service)
        stored = await self._context.bus.last(stream, self._subject(tenant, place))
        return ((), 0) if stored is None else (tuple(json.loads(stored.body)), stored.sequence)

    async def _write_label(self, subject: str, sources: tuple[str, ...], sequence: int) -> None:
        message_id = envelope.message_id(self._context.message_key, f"{subject}/{sequence}/{sources}")
        headers, body = {"content-type": envelope.CONTENT_TYPE}, json.dumps(sources).encode()
        try:
            await self._context.bus.publish(subject, body, headers, message_id, expect_last_on_subject=sequence)
        except WrongLastSequence as error:
            raise HandBack(CONFLICT_RETRY_S, "another call labels what it writes into the same place") from error

    def _subject(self, tenant: str, place: str) -> str:
        # Of no task: a label outlives the task that wrote.
        owner = envelope.derive_id("place", tenant, place)
        return subjects.record_subject(self._context.service, tenant, owner, "label")

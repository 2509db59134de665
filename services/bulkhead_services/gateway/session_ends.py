"""Ends of sessions and of login links, which every replica of the gateway believes at once.

In: a person who signs out, or in by a link. Out: a fact in the own inbox, where each replica looks before it believes a
session; open streams of the session end. Of two who use a link at the same moment the broker lets one be the first.
"""

import secrets
from collections.abc import Callable

from bulkhead.bus.port import WrongLastSequence
from bulkhead.runtime.context import Context
from bulkhead_contracts import subjects
from bulkhead_contracts.control import SessionEnded
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.gateway.admission.durable_writes import DurableWrites
from bulkhead_services.gateway.read_model.feeds import INBOX


class SessionEnds:
    """The sessions that people ended: facts in the gateway's own inbox."""

    def __init__(self, context: Context, writes: DurableWrites) -> None:
        self._context, self._writes = context, writes
        self._watchers: dict[str, list[Callable[[], object]]] = {}

    async def is_ended(self, tenant: str, session: str) -> bool:
        """True once the fact is stored, by whichever replica. Raises BusError."""
        subject = subjects.mesh_subject("gateway", "gateway", tenant, session)
        return await self._context.bus.last(INBOX, subject) is not None

    async def end_session(self, claim: RequesterClaim, session: str) -> None:
        """End a session at once, at every replica. Raises BusError."""
        fact, person = SessionEnded(person=claim.person), claim.person
        write = self._context.publisher.send(
            "gateway", fact, tenant=claim.tenant, task=session, index=f"ended/{session}", actor=person
        )
        await self._writes.write_within(write)
        self.on_session_ended(session)

    async def use_link(self, claim: RequesterClaim, link: str) -> bool:
        """True for the first who uses this link, at whichever replica. Raises BusError."""
        fact, index = SessionEnded(person=claim.person), f"used/{link}/{secrets.token_hex(8)}"
        write = self._context.publisher.send(
            "gateway", fact, tenant=claim.tenant, task=link, index=index, actor=claim.person, expect_last_on_subject=0
        )
        try:
            await self._writes.write_within(write)
        except WrongLastSequence:
            return False
        return True

    def on_session_ended(self, session: str) -> None:
        """End the open streams of the session."""
        for end_stream in self._watchers.pop(session, ()):
            end_stream()

    def watch_end(self, session: str, end_stream: Callable[[], object]) -> Callable[[], None]:
        """Call `end_stream` at the end of the session; the returned function forgets that."""
        self._watchers.setdefault(session, []).append(end_stream)

        def forget_watcher() -> None:
            remaining = [watcher for watcher in self._watchers.pop(session, ()) if watcher is not end_stream]
            if remaining:
                self._watchers[session] = remaining

        return forget_watcher

"""Notes about outside agents' writes, in the own inbox: a write is found again by what it does, whatever run it is of.

In: writes that begin, are joined or heard. Out: notes (`WriteNoted`) whose key derives from the person, the tool and
the canonical arguments; of a key, the runs in which a write is owed an answer. Nothing here is authoritative: what
this replica has forgotten is read again.
"""

import asyncio
from contextlib import suppress

from bulkhead.bounded_dict import BoundedDict
from bulkhead.runtime.context import Context
from bulkhead_contracts import catalog, subjects
from bulkhead_contracts.tool import WriteNoted
from bulkhead_services.doors.feed import INBOX, READ_BATCH, SERVICE
from bulkhead_services.doors.run_call import half_id

MAX_KEYS = 10_000
"""Keys whose notes are remembered."""
MAX_NOTED = 1_000
"""Writes and requests that are remembered under one key."""
MAX_RUNS = 64
"""Runs of one key that are looked at, the newest ones."""


def note_key(person: str, tool: str, arguments_json: str) -> str:
    """Key of the notes about this write."""
    return half_id(f"{person}\0{tool}\0{arguments_json}")


class NotedWrites:
    """The notes under one key. unheard: run and id of each write whose certain answer no client has; aliases: by the id
    of a later request, the run of the call that it is."""

    def __init__(self) -> None:
        self.sequence = 0
        self.unheard = BoundedDict[tuple[str, str], None](MAX_NOTED)
        self.aliases = BoundedDict[str, str](MAX_NOTED)
        self.reading = asyncio.Lock()

    def newest_runs(self) -> list[str]:
        """Runs with such a write, the newest first."""
        return list(dict.fromkeys(run for run, _ in reversed(self.unheard)))[:MAX_RUNS]

    def run_joined_by(self, request_half: str) -> str:
        """The run of the call that this request joined; "" for none."""
        return next((run for alias, run in self.aliases.items() if alias.endswith(request_half)), "")

    def apply_note(self, run: str, note: WriteNoted) -> None:
        """Fold one note, the next in order."""
        if note.alias:
            self.aliases[note.alias] = run
        elif note.heard:
            self.unheard.pop((run, note.call_id), None)
        else:
            self.unheard[run, note.call_id] = None


class WriteNotes:
    """The notes as this replica has read them."""

    def __init__(self, context: Context) -> None:
        self._bus = context.bus
        self._by_key = BoundedDict[tuple[str, str], NotedWrites](MAX_KEYS)

    async def find_writes(self, tenant: str, key: str) -> NotedWrites:
        """Notes under a key by now. Raises BusError."""
        noted = self._by_key.get_refreshed((tenant, key))
        if noted is None:
            noted = self._by_key[tenant, key] = NotedWrites()
        subject = f"mesh.{SERVICE}.{SERVICE}.*.{subjects.check_token(tenant)}.*.{key}"
        async with noted.reading:
            while batch := await self._bus.read(INBOX, subject, after=noted.sequence, limit=READ_BATCH):
                for stored in batch:
                    noted.sequence = stored.sequence
                    with suppress(catalog.DecodeError):  # Of a newer replica, which reads it itself.
                        note = catalog.decode_body(stored.ce_type, stored.body)
                        if isinstance(note, WriteNoted):
                            noted.apply_note(stored.task, note)
                if len(batch) < READ_BATCH:
                    break
        return noted

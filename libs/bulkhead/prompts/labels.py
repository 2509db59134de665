"""The live view of what labels stand for: read at start, followed live, re-read now and then.

In: releases of the stream PROMPTS. Out: the newest release of a tenant's label.
"""

import asyncio

from pydantic import ValidationError

from bulkhead.bus.port import Bus, BusError
from bulkhead.telemetry.log import Log
from bulkhead_contracts import subjects
from bulkhead_contracts.prompt import PromptRelease

log = Log("prompts")
REREAD_S = 2.0
"""What was not heard live is read so often."""


class ReleaseLabels:
    """The newest release of every label of every tenant."""

    def __init__(self, bus: Bus, label: str = "*") -> None:
        """label: of every tenant the one that is followed; `*` for all."""
        self._bus, self._subjects = bus, f"release.*.{label}.*"
        self._newest: dict[tuple[str, str], PromptRelease] = {}
        self._after = 0

    def find_newest(self, tenant: str, label: str) -> PromptRelease | None:
        """Release that the label stands for now; None before its first release."""
        return self._newest.get((tenant, label))

    def of_tenant(self, tenant: str) -> list[PromptRelease]:
        """The newest release of each of a tenant's labels, by label."""
        return [self._newest[key] for key in sorted(self._newest) if key[0] == tenant]

    def list_standing(self) -> list[tuple[tuple[str, str], PromptRelease]]:
        """The newest release of all labels, by tenant and label."""
        return sorted(self._newest.items(), key=lambda row: row[0])

    async def follow_releases(self) -> None:
        """Follow the releases until cancelled."""
        await asyncio.gather(self._follow_live(), self._reread_often())

    async def read_new(self) -> None:
        """Read the releases that were made since the last time. Raises BusError."""
        while page := await self._bus.read(subjects.PROMPTS_STREAM, self._subjects, after=self._after):
            for stored in page:
                self._fold_release(stored.subject, stored.body)
            self._after = page[-1].sequence

    def _fold_release(self, subject: str, body: bytes) -> None:
        try:
            release = PromptRelease.model_validate_json(body)
        except ValidationError:
            # Of a later version: the tasks that begin here keep the release before.
            log.warning("release_unreadable", subject=subject)
            return
        key = subject.split(".")[-3], release.label
        before = self._newest.get(key)
        if before is None or release.number > before.number:
            self._newest[key] = release

    async def _follow_live(self) -> None:
        subscription = await self._bus.subscribe_live(f"releases.live.{self._subjects.removeprefix('release.')}")
        async for heard in subscription:
            self._fold_release(heard.subject, heard.body)

    async def _reread_often(self) -> None:
        while True:
            try:
                await self.read_new()
            except BusError as error:
                log.warning("releases_unread", reason=str(error))
            await asyncio.sleep(REREAD_S)

"""The live view of workflows: every version of every tenant, with the facts about it. Read from the stream PROMPTS.

In: versions, facts and releases, as the registry stored them. Out: rows. Contents are read when they are asked for.
"""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import Bus
from bulkhead.telemetry.log import Log
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.workflow import WorkflowRelease, WorkflowRow, WorkflowTransition, WorkflowVersion

log = Log("workflows")
MAX_KNOWN = 64
"""Versions that are kept in memory."""


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """A version without its content. act, act_sha256: that made it."""

    row: WorkflowRow
    act: str
    act_sha256: str


class WorkflowLedger:
    """Versions of all tenants."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._known: dict[tuple[str, str], dict[int, VersionRecord]] = {}
        self._releases: dict[tuple[str, str], list[WorkflowRelease]] = {}
        self._contents = BoundedDict[tuple[str, str, int], WorkflowVersion](MAX_KNOWN)
        self._after, self._reading = 0, asyncio.Lock()

    async def read_new(self) -> None:
        """Read what was stored since the last time. Raises BusError."""
        # Two who read the same page would fold it twice, the second one over what followed.
        async with self._reading:
            while page := await self._bus.read(subjects.PROMPTS_STREAM, "workflow.>", after=self._after):
                for stored in page:
                    _, tenant, name, number, *place = stored.subject.split(".")
                    try:
                        self._fold_stored(tenant, name, int(number), stored.body, is_fact=bool(place))
                    except ValidationError:
                        # Of a later version: nobody here can run it.
                        log.warning("workflow_unreadable", subject=stored.subject)
                self._after = page[-1].sequence

    def _fold_stored(self, tenant: str, name: str, number: int, body: bytes, *, is_fact: bool) -> None:
        if not number:
            release, earlier = WorkflowRelease.model_validate_json(body), self._releases.get((tenant, name), [])
            # Of the releases before, those of the canary that goes on say which share it had.
            began = release.canary.began if release.canary is not None else release.number
            self._releases[tenant, name] = [*(row for row in earlier if row.number >= began), release]
            return
        versions = self._known.setdefault((tenant, name), {})
        if not is_fact:
            version = WorkflowVersion.model_validate_json(body)
            row = WorkflowRow(
                workflow=name,
                number=number,
                sha256=version.sha256,
                description=version.content.description,
                person=version.person,
                note=version.note[: bounds.MAX_SUMMARY_CHARS],
                drafted_unix_ms=version.drafted_unix_ms,
            )
            versions[number] = VersionRecord(row, version.act, version.act_sha256)
            return
        record, fact = versions.get(number), WorkflowTransition.model_validate_json(body)
        if record is None or fact.place != len(record.row.transitions) + 1:
            log.warning("workflow_fact_misplaced", tenant=tenant, workflow=name, number=number, place=fact.place)
            return
        transitions = (*record.row.transitions, fact)
        changes = {name: getattr(fact, name) for name in ("state", "schedule", "trigger")} | {
            "transitions": transitions
        }
        versions[number] = VersionRecord(record.row.model_copy(update=changes), record.act, record.act_sha256)

    def list_names(self, tenant: str) -> list[str]:
        """Names of a tenant's workflows."""
        return sorted(name for owner, name in self._known if owner == tenant)

    def list_versions(self, tenant: str, name: str) -> list[VersionRecord]:
        """All versions, the newest first."""
        return [record for _, record in sorted(self._known.get((tenant, name), {}).items(), reverse=True)]

    def count_drafts(self, tenant: str, since_unix_ms: int) -> int:
        """Number of a tenant's versions that were drafted since then."""
        rows = (
            record.row
            for (owner, _), versions in self._known.items()
            if owner == tenant
            for record in versions.values()
        )
        return sum(row.drafted_unix_ms >= since_unix_ms for row in rows)

    def find_unpublished(self, tenant: str, versions: Iterable[WorkflowVersion]) -> tuple[str, str] | None:
        """The first of these versions that is not published, and its state ("gone" without one); None for none."""
        for version in versions:
            record = self.find_version(tenant, version.workflow, version.number)
            if record is None or record.row.state != "published":
                return version.ref, record.row.state.replace("_", " ") if record is not None else "gone"
        return None

    def find_version(self, tenant: str, name: str, number: int) -> VersionRecord | None:
        """The version of this number, without its content; None where there is none."""
        return self._known.get((tenant, name), {}).get(number)

    def find_published(self, tenant: str, name: str) -> VersionRecord | None:
        """The newest version that is published."""
        return next((record for record in self.list_versions(tenant, name) if record.row.state == "published"), None)

    def find_release(self, tenant: str, name: str, number: int = 0) -> WorkflowRelease | None:
        """The newest release of a workflow; of a canary that goes on also an earlier one, by its number."""
        releases = self._releases.get((tenant, name), [])
        return next((row for row in reversed(releases) if number in (0, row.number)), None)

    def find_canary(self, tenant: str, name: str) -> WorkflowRelease | None:
        """The newest release of a workflow whose canary stands: nothing has become known about its version, and the
        one beside it is the published one as before."""
        release, published = self.find_release(tenant, name), self.find_published(tenant, name)
        canary = release.canary if release is not None else None
        record = self.find_version(tenant, name, canary.number) if canary is not None else None
        if canary is None or record is None or published is None:
            return None
        stands = len(record.row.transitions) == canary.facts and published.row.number == canary.published
        return release if stands else None

    def list_canaries(self) -> dict[tuple[str, str], WorkflowRelease]:
        """The releases whose canary stands, by tenant and workflow."""
        releases = {key: self.find_canary(*key) for key in sorted(self._releases)}
        return {key: release for key, release in releases.items() if release is not None}

    def list_scheduled(self) -> list[tuple[str, WorkflowRow]]:
        """Published versions that have a schedule which is not paused, each with its tenant."""
        rows = self._list_published()
        return [(tenant, row) for tenant, row in rows if row.schedule is not None and not row.schedule.paused]

    def list_triggered(self, tenant: str, at_unix_ms: int) -> list[WorkflowRow]:
        """A tenant's versions that had a trigger then, as they stood then."""
        rows = []
        for row in (record.row for name in self.list_names(tenant) for record in self.list_versions(tenant, name)):
            earlier = tuple(fact for fact in row.transitions if fact.moved_unix_ms <= at_unix_ms)
            if earlier and (trigger := earlier[-1].trigger) is not None:
                rows.append(row.model_copy(update={"trigger": trigger, "schedule": None, "transitions": earlier}))
        return rows

    def _list_published(self) -> Iterator[tuple[str, WorkflowRow]]:
        for (tenant, _), versions in sorted(self._known.items()):
            yield from ((tenant, record.row) for record in versions.values() if record.row.state == "published")

    async def read_version(self, tenant: str, name: str, number: int) -> WorkflowVersion | None:
        """A version with its content; None where there is none. Raises BusError."""
        if self.find_version(tenant, name, number) is None:
            return None
        key = tenant, name, number
        if (version := self._contents.get_refreshed(key)) is None:
            stored = await self._bus.last(subjects.PROMPTS_STREAM, subjects.workflow_subject(*key))
            if stored is None:
                return None
            version = self._contents[key] = WorkflowVersion.model_validate_json(stored.body)
        return version

    async def read_nested(self, tenant: str, version: WorkflowVersion) -> dict[str, WorkflowVersion]:
        """Versions that its steps stand for, and theirs, by ref; those that are not there are left out. Raises
        BusError, ValueError where they are too many or too large."""
        nested: dict[str, WorkflowVersion] = {}
        waiting, size = list(version.content.nested_refs), len(version.model_dump_json().encode())
        while waiting:
            ref = waiting.pop()
            name, _, number = ref.partition(".")
            if ref in nested or (inner := await self.read_version(tenant, name, int(number))) is None:
                continue
            nested[ref], size = inner, size + len(inner.model_dump_json().encode())
            if len(nested) > bounds.MAX_NESTED_WORKFLOWS or size > bounds.MAX_NESTED_BYTES:
                limit = f"{bounds.MAX_NESTED_WORKFLOWS} versions and {bounds.MAX_NESTED_BYTES // 1024} KiB"
                raise ValueError(f"it stands on more than {limit}, with all that it nests")
            waiting += inner.content.nested_refs
        return nested

    async def read_runnable(self, tenant: str, row: WorkflowRow) -> tuple[WorkflowVersion, tuple[WorkflowVersion, ...]]:
        """A version with all that it nests, to run it. Raises BusError, ValueError where something is not published."""
        version = await self.read_version(tenant, row.workflow, row.number)
        assert version is not None
        nested = tuple((await self.read_nested(tenant, version)).values())
        if (unpublished := self.find_unpublished(tenant, nested)) is not None:
            raise ValueError(f"it nests {unpublished[0]}, which is published no more")
        return version, nested

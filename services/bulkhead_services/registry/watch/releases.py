"""The releases whose canaries are watched: of labels of prompts, and of workflows, each under the name of its canary.

In: both as the registry reads them. Out: what stands, `production` or `workflow:weekly-report`.
"""

from collections.abc import Awaitable, Callable

from bulkhead.prompts.labels import ReleaseLabels
from bulkhead.workflows.ledger import WorkflowLedger
from bulkhead_contracts import subjects
from bulkhead_contracts.prompt import OF_WORKFLOW, PromptRelease
from bulkhead_contracts.workflow import WorkflowRelease
from bulkhead_services.registry.core import Release

ReadRelease = Callable[[str, str, int], Awaitable[PromptRelease | None]]


class WatchedReleases:
    """Releases of both kinds. read_release: of a tenant and label, by number."""

    def __init__(self, labels: ReleaseLabels, ledger: WorkflowLedger, read_release: ReadRelease) -> None:
        self._labels, self._ledger, self._read_release = labels, ledger, read_release

    async def read_new(self) -> None:
        """Read what was stored since the last time. Raises BusError."""
        await self._labels.read_new()
        await self._ledger.read_new()

    def list_canaries(self) -> dict[tuple[str, str], Release]:
        """The newest releases whose canary stands, by tenant and name."""
        of_labels = {key: release for key, release in self._labels.list_standing() if release.canary is not None}
        of_workflows = self._ledger.list_canaries().items()
        return {**of_labels, **{(tenant, OF_WORKFLOW + name): release for (tenant, name), release in of_workflows}}

    def find_newest(self, tenant: str, name: str) -> Release | None:
        """The newest release under a name."""
        if name.startswith(OF_WORKFLOW):
            return self._ledger.find_release(tenant, name.removeprefix(OF_WORKFLOW))
        return self._labels.find_newest(tenant, name)

    async def find_release(self, tenant: str, name: str, number: int) -> Release | None:
        """A release by its number, of a canary that stands. Raises BusError."""
        if name.startswith(OF_WORKFLOW):
            return self._ledger.find_release(tenant, name.removeprefix(OF_WORKFLOW), number)
        return await self._read_release(tenant, name, number)


def subject_of(tenant: str, release: Release) -> str:
    """The subject of a release; of a workflow's the facts about no single version."""
    if isinstance(release, WorkflowRelease):
        return subjects.workflow_subject(tenant, release.workflow, 0, release.number)
    return subjects.release_subject(tenant, release.label, release.number)

"""Versions of prompts that use much more than the ones before: told when the tokens for an accepted answer rise by
half. Pure.

In: replies of the model gateway, verdicts and ends of tasks, out of the journal. Out: a finding, once per tenant, pair
of versions and UTC day, for its id derives from those. After a restart tasks are counted anew.
"""

import hashlib
from datetime import UTC, datetime

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import StoredMessage
from bulkhead.health.findings import HealthFinding
from bulkhead.journal.order import published_unix_ms
from bulkhead.journal.prompt_usage import HINT, PromptFigures, TaskPrompts, find_hungry_versions
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.task import TaskEnded
from bulkhead_contracts.verdict import VerdictReached
from bulkhead_services.budget.watch.notices import PROMPT_USAGE as DETECTOR

MAX_TASKS, MAX_TENANTS, MAX_VERSIONS, MAX_CALLS = 10_000, 1_000, 200, 2_000
_BODIES = {body.TYPE: body for body in (ModelCallReplied, VerdictReached)}


class PromptUsageFold:
    """The fold. Of a tenant the latest versions are kept, and of a task the first calls."""

    def __init__(self) -> None:
        self._tasks = BoundedDict[str, TaskPrompts](MAX_TASKS)
        self._versions = BoundedDict[str, BoundedDict[str, PromptFigures]](MAX_TENANTS)

    def fold_message(self, kind: str, stored: StoredMessage) -> list[HealthFinding]:
        """Fold one message of this type. What cannot be read tells nothing."""
        lineage = f"{stored.tenant}/{stored.task}"
        if kind == TaskEnded.TYPE:
            task = self._tasks.pop(lineage, None)
            return self._count_task(task, lineage, stored) if task is not None else []
        if kind not in _BODIES:
            return []
        task = self._tasks.get(lineage) or TaskPrompts()
        if len(task.calls) + len(task.accepted) < MAX_CALLS:
            try:
                task.fold_body(_BODIES[kind].model_validate_json(stored.body))
            except ValueError:
                return []
        self._tasks[lineage] = task
        return []

    def _count_task(self, task: TaskPrompts, lineage: str, stored: StoredMessage) -> list[HealthFinding]:
        tenant, now_unix_ms = lineage.partition("/")[0], published_unix_ms(stored)
        versions = self._versions.get_refreshed(tenant) or BoundedDict[str, PromptFigures](MAX_VERSIONS)
        self._versions[tenant] = versions
        task.add_to(versions)
        day, evidence = datetime.fromtimestamp(now_unix_ms / 1000, UTC).date(), (stored.headers.get("ce-id", ""),)
        findings = []
        for hungry in find_hungry_versions(versions):
            digest = hashlib.sha256(f"{DETECTOR}|{tenant}|{hungry.prompt}|{hungry.before}|{day}".encode())
            facts = {"prompt": hungry.prompt, "before": hungry.before}
            finding_id, agents = digest.hexdigest()[:32], (hungry.prompt,)
            finding = HealthFinding(
                finding_id, DETECTOR, "warn", tenant, lineage, agents, hungry.what, HINT, evidence, now_unix_ms, facts
            )
            findings.append(finding)
        return findings

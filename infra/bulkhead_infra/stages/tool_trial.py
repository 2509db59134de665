"""The executor's workbench for trials of single tools (`bulkhead.testing.tool_trial.Trial`)."""

import json
from collections.abc import Mapping
from dataclasses import replace
from time import monotonic
from typing import Any

from bulkhead.policy.cedar import CedarPolicy
from bulkhead.policy.decision import decide
from bulkhead.policy.records import DecisionRecord, RecordCall, RecordContent, RecordGrant, build_proposal
from bulkhead.policy.ruling import CallRuling
from bulkhead.telemetry.redaction import without_sensitive
from bulkhead.testing.tool_trial import Ended, ToolOutcome
from bulkhead.tools.api import Arguments, Failed
from bulkhead.tools.catalog import tool_rows
from bulkhead.tools.results import find_sensitive_kinds
from bulkhead_contracts.result import Failure
from bulkhead_services.tool_executor.effects import ToolRunner
from bulkhead_services.tool_executor.registry import RegisteredTool, load_registry
from bulkhead_services.tool_executor.settings import POLICY_DIR, Settings


class ToolTrial:
    """See Trial."""

    def __init__(self, packs: tuple[str, ...], settings: Mapping[str, Any]) -> None:
        known = {name: value for name, value in settings.items() if name in Settings.model_fields}
        given = Settings(**{**known, **({"packs": packs} if packs else {})})
        declared = tool_rows(given.packs)
        self._registry = load_registry(given.configured_names(), declared)
        self._bench: ToolRunner | None = None
        self._settings = given
        self._specs = {row.spec.name: row.spec for row in declared}
        self._policy = CedarPolicy.load_folder(given.policy_dir, self._specs.values(), POLICY_DIR)

    async def call(self, tool: str, arguments: str, *, tenant: str, user: str, key: str, approve: bool) -> ToolOutcome:
        """One attempt."""
        found = self._registry.find_tool(tool)
        if found is None:
            return _refused(tool, self._registry.why_unavailable(tool))
        read = found.read_arguments(arguments)
        if isinstance(read, Failure):
            return _refused(tool, read)
        if self._bench is None:  # In the loop in which it runs.
            self._bench = ToolRunner(self._settings)
        if (low := self._bench.isolation_refusal(found)) is not None:
            return _refused(tool, Failure.from_text(low.code, low.message, low.hint))
        ruling = self._ruled(found, read, tenant, user)
        if ruling.effect == "forbid" or (ruling.effect == "ask" and not approve):
            return replace(_refused(tool, _unruled(tool, ruling)), policy=ruling.effect, rule=ruling.rule)
        tried = await self._made(found, read, tenant, user, key)
        return replace(tried, policy=ruling.effect, rule=ruling.rule)

    def _ruled(self, tool: RegisteredTool, arguments: Arguments, tenant: str, user: str) -> CallRuling:
        """The ruling of policy on the call, where its user wrote every value himself."""
        assert self._bench is not None
        words = RecordContent(content=json.dumps(dict(arguments), ensure_ascii=False), source="user")
        call = RecordCall(tool=tool.spec.name, arguments=dict(arguments), isolation=self._bench.isolation_of(tool))
        record = DecisionRecord(grant=RecordGrant(tenant=tenant, actor=user), sources=(words,), call=call)
        return decide(build_proposal(record, self._specs), self._policy)

    async def _made(self, found: RegisteredTool, read: Arguments, tenant: str, user: str, key: str) -> ToolOutcome:
        assert self._bench is not None
        tool = found.spec.name
        began, whole_key = monotonic(), f"{tenant}.trial.{key}"
        said = await self._bench.run(found, read, whole_key, found.spec.timeout_ms / 1000, None, user=user)
        took_ms = int((monotonic() - began) * 1000)
        if isinstance(said, Failed):
            maybe_done = found.spec.effect == "write" and said.effect == "unknown"
            ended: Ended = "uncertain" if maybe_done else "failed"
            told = (said.code, without_sensitive(said.message), without_sensitive(said.hint))
            return ToolOutcome(tool, ended, "", *told, took_ms=took_ms)
        raw, bound = said.text.encode("utf-8", "replace"), found.row.max_output_bytes
        cut = (f"cut at {bound} bytes",) if said.truncated or len(raw) > bound else ()
        text = raw[:bound].decode("utf-8", "ignore")
        missing = (*cut, *((said.missing,) if said.missing else ()))
        return ToolOutcome(
            tool, "succeeded", text, missing=missing, sensitive=find_sensitive_kinds(text), took_ms=took_ms
        )

    async def close(self) -> None:
        """End its processes."""
        if self._bench is not None:
            await self._bench.close()


def _unruled(tool: str, ruling: CallRuling) -> Failure:
    why = "; ".join(ruling.reasons)
    if ruling.effect == "ask":
        hint = "a mesh would ask a person; be that person with --approve, or approve=True"
        return Failure.from_text(
            "approval_wanted", f"policy asks about {tool} (rule {ruling.rule}): {why}"[:2_000], hint
        )
    hint = "permit it in the folder that BULKHEAD_POLICY_DIR names; docs/how-to/policy.md has the rules"
    code = ruling.code or "forbidden"
    return Failure.from_text(code, f"policy forbids this call of {tool} (rule {ruling.rule}): {why}"[:2_000], hint)


def _refused(tool: str, failure: Failure) -> ToolOutcome:
    return ToolOutcome(tool, "refused", "", failure.code, failure.message, failure.hint)

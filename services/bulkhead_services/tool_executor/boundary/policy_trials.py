"""Questions about tools and policy, which the gateway asks for people: nothing is called, nothing is written.

In: ToolListRequested, ToolDetailRequested, PolicyTrialRequested (rpc). Out: the tenant's tools with what policy says of
a sample call, a tool's declaration with the rules that speak of it, the ruling on a call that nobody makes. The ruling
is the gate's own function, on a proposal that is built as `bulkhead policy explain` builds it: sources are taken at
their word, and no plan, no earlier call and no label of a place counts.
"""

import asyncio
import json
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass

from pydantic import ValidationError

from bulkhead.bounded_dict import BoundedDict
from bulkhead.policy.cedar import CedarPolicy, CedarRule
from bulkhead.policy.records import DecisionRecord, RecordCall, RecordContent, RecordGrant, build_proposal
from bulkhead.policy.ruling import CallProposal, CallRuling
from bulkhead.policy.schema import FLOW
from bulkhead.quotas.tenant_quotas import TenantQuotas
from bulkhead.runtime.component import RpcTable
from bulkhead.runtime.consume.inbound import ReceivedMessage
from bulkhead.runtime.fair_semaphore import FairSemaphore
from bulkhead.text.plain_text import cut_line
from bulkhead.tools.api import Arguments, Failed
from bulkhead.tools.catalog import ToolRow
from bulkhead_contracts import bounds
from bulkhead_contracts.provenance import Isolation
from bulkhead_contracts.result import Failure
from bulkhead_contracts.tool import (
    OfferedTool,
    PolicyOutlook,
    PolicyRule,
    PolicyTrialReplied,
    PolicyTrialRequested,
    ToolDetailReplied,
    ToolDetailRequested,
    ToolListReplied,
    ToolListRequested,
    ToolSpec,
    TrialFinding,
)
from bulkhead_services.tool_executor.boundary.gate import RulingFunction
from bulkhead_services.tool_executor.boundary.sample_calls import build_sample_arguments
from bulkhead_services.tool_executor.registry import RegisteredTool, ToolRegistry

MAX_CACHED_OUTLOOKS = 4_096
"""Rules are read once, so that what they say of a sample call stays."""
MAX_TRIALS_WAITING = 4
"""Of one tenant: a trial of long arguments takes half a second of a core."""
SAMPLE_PERSON, SAMPLE_ROLE = "sample", "submitter"


@dataclass(frozen=True, slots=True)
class PolicyFiles:
    """The rules: what the gate rules by, and their texts where they stand in files."""

    rule: RulingFunction
    cedar: CedarPolicy | None = None

    def rules_about(self, tenant: str, tool: ToolSpec) -> tuple[CedarRule, ...]:
        """Rules of files that speak of a tool."""
        return self.cedar.rules_about(tenant, tool) if self.cedar is not None else ()

    def find_rule(self, tenant: str, name: str) -> CedarRule | None:
        """The rule of this name; None for what is no rule of a file."""
        rules = self.cedar.rules_of(tenant) if self.cedar is not None else ()
        return next((rule for rule in rules if rule.name == name), None)


class PolicyTrials:
    """See the module. declared: rows of the catalog, those of other services too. quotas: the tenants file, None
    where there is none: then every tool is every tenant's."""

    def __init__(
        self,
        registry: ToolRegistry,
        declared: Collection[ToolRow],
        policy: PolicyFiles,
        quotas: TenantQuotas | None,
        isolation_of: Callable[[RegisteredTool], Isolation],
        isolation_refusal: Callable[[RegisteredTool], Failed | None],
    ) -> None:
        self._registry, self._policy, self._quotas = registry, policy, quotas
        self._declared = {row.spec.name: row for row in declared}
        self._isolation_of, self._isolation_refusal = isolation_of, isolation_refusal
        self._turns = FairSemaphore(1)
        self._outlooks: BoundedDict[tuple[ToolSpec, Isolation, RecordGrant], PolicyOutlook | None] = BoundedDict(
            MAX_CACHED_OUTLOOKS
        )
        self.rpc: RpcTable = {
            ToolListRequested: self.on_tool_list_requested,
            ToolDetailRequested: self.on_tool_detail_requested,
            PolicyTrialRequested: self.on_policy_trial_requested,
        }

    async def on_tool_list_requested(self, message: ReceivedMessage) -> ToolListReplied:
        """The tools of the tenant, by name."""
        rows = [row for name in self._tool_names(message.tenant) if (row := self._find_row(name)) is not None]
        async with self._turns.hold_slot(message.tenant, ""):
            tools = await asyncio.to_thread(
                lambda: tuple(self._describe_tool(message.tenant, row) for row in rows[: bounds.MAX_TOOLS])
            )
        return ToolListReplied(tools=tools, more=max(0, len(rows) - bounds.MAX_TOOLS))

    async def on_tool_detail_requested(self, message: ReceivedMessage) -> ToolDetailReplied:
        """One tool of the tenant."""
        request, tenant = message.body, message.tenant
        assert isinstance(request, ToolDetailRequested)
        row = self._tenant_row(tenant, request.tool)
        if isinstance(row, Failure):
            return ToolDetailReplied(failure=row)
        rules = self._policy.rules_about(tenant, row.spec) if _is_ruled_on(row) else ()
        async with self._turns.hold_slot(tenant, ""):
            tool = await asyncio.to_thread(self._describe_tool, tenant, row)
        return ToolDetailReplied(
            tool=tool,
            spec=row.spec,
            sample_json=_sample_json(row.spec),
            rules=tuple(_written_rule(rule) for rule in rules[: bounds.MAX_RULES_TOLD]),
            more_rules=max(0, len(rules) - bounds.MAX_RULES_TOLD),
            constraints=self._quotas.constraints_of(tenant) if self._quotas is not None else (),
            policy_sha256=self._policy.cedar.sha256 if self._policy.cedar is not None else "",
        )

    async def on_policy_trial_requested(self, message: ReceivedMessage) -> PolicyTrialReplied:
        """The ruling on a call that nobody makes."""
        request, tenant = message.body, message.tenant
        assert isinstance(request, PolicyTrialRequested)
        row = self._tenant_row(tenant, request.tool)
        if isinstance(row, Failure):
            return PolicyTrialReplied(failure=row)
        if not _is_ruled_on(row):
            reason = f"{request.tool} is served by {_service_of(row)}: grants decide about it, and no policy is asked"
            return PolicyTrialReplied(failure=Failure.from_text("not_ruled", reason, "try a tool of tool_executor"))
        if (tool := self._registry.find_tool(request.tool)) is None:
            return PolicyTrialReplied(failure=self._registry.why_unavailable(request.tool))
        arguments = tool.read_arguments(request.arguments_json)
        if isinstance(arguments, Failure):
            return PolicyTrialReplied(failure=arguments)
        if self._turns.count_waiting(tenant) >= MAX_TRIALS_WAITING:
            reason = f"{MAX_TRIALS_WAITING} trials of the tenant wait already"
            return PolicyTrialReplied(failure=Failure.from_text("busy", reason, "try again in a moment"))
        async with self._turns.hold_slot(tenant, request.person):
            return await asyncio.to_thread(self._rule_on_trial, tenant, request, tool, arguments)

    def _rule_on_trial(
        self, tenant: str, request: PolicyTrialRequested, tool: RegisteredTool, arguments: Arguments
    ) -> PolicyTrialReplied:
        sources = tuple(
            RecordContent(content=text.content, source=text.source, name=text.name) for text in request.sources
        )
        grant = self._build_grant(tenant, request.person, request.role, tool.spec.name, request.feature)
        try:
            proposal = self._build_proposal(tool.spec, self._isolation_of(tool), grant, arguments, sources)
        except ValidationError:
            hint = "send the arguments as the tool's schema has them"
            return PolicyTrialReplied(failure=Failure.from_text("bad_arguments", "they cannot be ruled on", hint))
        ruling = self._policy.rule(proposal)
        rule = self._policy.find_rule(tenant, ruling.rule)
        return PolicyTrialReplied(
            effect=ruling.effect,
            rule=ruling.rule[: bounds.MAX_NAME_CHARS],
            risk=ruling.risk,
            code=ruling.code,
            reasons=_cut_reasons(ruling),
            findings=tuple(
                TrialFinding(
                    **asdict(finding)
                    | {"text": finding.text[: bounds.MAX_SUMMARY_CHARS], "why": finding.why[: bounds.MAX_REASON_CHARS]}
                )
                for finding in ruling.findings[: bounds.MAX_FINDINGS]
            ),
            origins=(proposal.values or ())[: bounds.MAX_FINDINGS],
            written=_written_rule(rule) if rule is not None else None,
            isolation=proposal.isolation,
            policy_sha256=ruling.policy_sha256,
        )

    def _tool_names(self, tenant: str) -> tuple[str, ...]:
        """Names of the tools that the tenant's tasks may be granted, in order."""
        if self._quotas is None:
            return tuple(sorted(self._registry.tools))
        self._quotas.reload_if_changed()
        return tuple(sorted(self._quotas.tools_of(tenant) or ()))

    def _tenant_row(self, tenant: str, name: str) -> ToolRow | Failure:
        """The row of a tool of the tenant."""
        row = self._find_row(name) if name in self._tool_names(tenant) else None
        hint = "GET /v1/tools lists the tools of your tenant"
        return row or Failure.from_text("unknown_tool", f"tenant {tenant} has no tool {name!r}", hint)

    def _find_row(self, name: str) -> ToolRow | None:
        registered = self._registry.tools.get(name)
        return registered.row if registered is not None else self._declared.get(name)

    def _build_grant(self, tenant: str, person: str, role: str, tool: str, feature: str = "") -> RecordGrant:
        """A grant of the tenant for one tool, with what each of its grants has."""
        quotas = self._quotas
        return RecordGrant(
            tenant=tenant,
            actor=person,
            role=role,
            tools=(tool,),
            constraints=quotas.constraints_of(tenant) if quotas is not None else (),
            document_scopes=quotas.document_scopes_of(tenant) if quotas is not None else (),
            feature=feature,
        )

    def _describe_tool(self, tenant: str, row: ToolRow) -> OfferedTool:
        spec, tool, unavailable = row.spec, self._registry.find_tool(row.spec.name), ""
        if tool is None and _is_ruled_on(row):
            unavailable = self._registry.why_unavailable(spec.name).message
        elif tool is not None and (refusal := self._isolation_refusal(tool)) is not None:
            unavailable = refusal.message
        return OfferedTool(
            name=spec.name,
            about=cut_line(spec.description, bounds.MAX_SUMMARY_CHARS),
            effect=spec.effect,
            egress=spec.egress,
            served_by=_service_of(row),
            isolation=spec.isolation,
            runs_in=self._isolation_of(tool) if tool is not None else "none",
            unavailable=unavailable[: bounds.MAX_REASON_CHARS],
            outlook=self._find_outlook(tenant, spec, self._isolation_of(tool)) if tool is not None else None,
        )

    def _find_outlook(self, tenant: str, spec: ToolSpec, isolation: Isolation) -> PolicyOutlook | None:
        """Policy's word on a sample call, made out once; None where policy cannot be asked about the sample."""
        grant = self._build_grant(tenant, SAMPLE_PERSON, SAMPLE_ROLE, spec.name)
        key = (spec, isolation, grant)
        if key not in self._outlooks:
            self._outlooks[key] = self._rule_on_sample(spec, isolation, grant)
        return self._outlooks[key]

    def _rule_on_sample(self, spec: ToolSpec, isolation: Isolation, grant: RecordGrant) -> PolicyOutlook | None:
        arguments = build_sample_arguments(spec)
        asker_text = RecordContent(content=json.dumps(arguments), source="user")
        from_asker, from_elsewhere = (
            self._policy.rule(self._build_proposal(spec, isolation, grant, arguments, sources))
            for sources in ((asker_text,), ())
        )
        if from_asker.rule == "arguments":
            return None
        return PolicyOutlook(
            from_asker=from_asker.effect,
            asker_rule=from_asker.rule[: bounds.MAX_NAME_CHARS],
            from_elsewhere=from_elsewhere.effect,
            elsewhere_rule=from_elsewhere.rule[: bounds.MAX_NAME_CHARS],
            depends=any(
                rule.is_conditional and rule.actions != {FLOW} for rule in self._policy.rules_about(grant.tenant, spec)
            ),
        )

    @staticmethod
    def _build_proposal(
        spec: ToolSpec,
        isolation: Isolation,
        grant: RecordGrant,
        arguments: Arguments,
        sources: tuple[RecordContent, ...],
    ) -> CallProposal:
        call = RecordCall(tool=spec.name, arguments=dict(arguments), isolation=isolation)
        return build_proposal(DecisionRecord(grant=grant, sources=sources, call=call), {spec.name: spec})


def _is_ruled_on(row: ToolRow) -> bool:
    """True of tools that this service runs: policy is asked about no other."""
    return not row.built_in and row.spec.served_by == "tool_executor"


def _service_of(row: ToolRow) -> str:
    return "worker" if row.built_in else row.spec.served_by


def _sample_json(spec: ToolSpec) -> str:
    sample = json.dumps(build_sample_arguments(spec), ensure_ascii=False)
    return sample if len(sample) <= bounds.MAX_SCHEMA_BYTES else ""


def _cut_reasons(ruling: CallRuling) -> tuple[str, ...]:
    return tuple(reason[: bounds.MAX_REASON_CHARS] for reason in ruling.reasons[: bounds.MAX_FINDINGS])


def _written_rule(rule: CedarRule) -> PolicyRule:
    return PolicyRule(
        name=rule.name,
        file=rule.file,
        line=rule.line,
        effect="permit" if rule.effect == "permit" else "forbid",
        asks=rule.asks,
        text=rule.text[: bounds.MAX_RULE_TEXT_CHARS],
    )

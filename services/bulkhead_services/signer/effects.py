"""The signer's edge: reads the policy once and signs what `core` grants.

In: GrantRequested, SignatureRequested (rpc, from the gateway alone), VouchRequested (from doors, too), ToolsRequested
(from doors). Out: a signed token or why not, tools.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from bulkhead.callers.tokens import CallerTokens
from bulkhead.prompts.labels import ReleaseLabels
from bulkhead.runtime.context import Context
from bulkhead.runtime.edge.protocol import EdgeComponent, ReceivedMessage, RpcTable
from bulkhead.telemetry.log import Log
from bulkhead.tools import agents_file, catalog, mcp_file, packs
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.approval import SignatureReplied, SignatureRequested
from bulkhead_contracts.grant import (
    GrantReplied,
    GrantRequested,
    ToolsReplied,
    ToolsRequested,
    VouchReplied,
    VouchRequested,
)
from bulkhead_contracts.output import DRAFT, InputPolicy
from bulkhead_contracts.prompt import PRODUCTION, PromptRelease
from bulkhead_contracts.result import Failure
from bulkhead_services.signer.core import (
    GrantPolicies,
    TenantsFileError,
    decide_approval,
    decide_grant,
    grantable_tools,
    policies_from,
)
from bulkhead_services.signer.credentials import CredentialChecker
from bulkhead_services.signer.settings import Settings

log = Log("signer")

MAX_TOKEN_BYTES = bounds.MAX_GRANT_TOKEN_BYTES // 2
"""A step grant carries its task grant, base64 once more, beside its own claims: both must fit one header."""


class GrantSigner(EdgeComponent):
    """The edge. It has no inbox."""

    def __init__(self, context: Context, settings: Settings) -> None:
        self._context, self._settings = context, settings
        self._policies: GrantPolicies | None = None
        self._tokens = CallerTokens(settings)
        self._labels = ReleaseLabels(context.bus, PRODUCTION)
        self._following: asyncio.Task[None] | None = None
        self.credentials = CredentialChecker(self._tokens, context.verifier)
        self.rpc: RpcTable = {
            GrantRequested: self.on_grant_requested,
            VouchRequested: self.on_vouch_requested,
            SignatureRequested: self.on_signature_requested,
            ToolsRequested: self.on_tools_requested,
        }

    async def start(self) -> None:
        """Read the policy and what the labels of prompts stand for. Raises TenantsFileError (a ValueError) with what to
        do, BusError."""
        settings = self._settings
        self._tokens.check_settings()
        declared = catalog.tool_rows(settings.packs)
        declared_specs = {row.spec.name: row.spec for row in declared}
        built_in = frozenset(row.spec.name for row in declared if row.built_in)
        available = {spec.name: spec for spec in catalog.tool_specs(settings.configured(), settings.packs)}
        of_servers = {row.spec.name: row.spec for row in mcp_file.mcp_rows(settings.mcp_file, declared_specs)}
        declared_specs, available = declared_specs | of_servers, available | of_servers
        of_agents = {row.spec.name: row.spec for row in agents_file.agent_rows(settings.agents_file, declared_specs)}
        declared_specs, available = declared_specs | of_agents, available | of_agents
        roles, skew = packs.worker_roles(settings.packs), settings.model_dump(include={"max_age_ms", "max_ahead_ms"})
        self._policies = policies_from(
            _read_tenants_file(settings.tenants_file),
            declared_specs,
            available,
            worker_roles=roles,
            built_in=built_in,
            **skew,
        )
        servers, agents = mcp_file.read_mcp_file(settings.mcp_file), agents_file.read_agents_file(settings.agents_file)
        _check_tool_tenants(self._policies, servers.tenants_of(), "MCP server", "MCP servers")
        _check_tool_tenants(self._policies, agents.tenants_of(), "agent", "agents")
        tenants, not_configured = len(self._policies.tenants), ",".join(sorted(self._policies.unavailable))
        log.info("policy_read", tenants=tenants, tools=len(available), not_configured=not_configured)
        await self._labels.read_new()
        self._following = self._context.background.start("labels", self._labels.follow_releases())

    async def stop(self) -> None:
        """End following the labels."""
        if self._following is not None:
            self._following.cancel()

    @property
    def _loaded_policies(self) -> GrantPolicies:
        """The policies; requests are served after `start` alone."""
        assert self._policies is not None
        return self._policies

    def is_ready(self) -> bool:
        """True when the policy is read."""
        return self._policies is not None

    async def on_grant_requested(self, message: ReceivedMessage) -> GrantReplied:
        """One request, one signed grant or one reason."""
        body = message.body
        assert isinstance(body, GrantRequested)
        now_unix_ms = self._context.clock()
        decided = decide_grant(self._loaded_policies, body, message.tenant, message.task, now_unix_ms)
        if isinstance(decided, Failure):
            return self._refuse_grant(message, decided)
        if body.purpose == "task":
            unproven = await self.credentials.check_voucher(
                body.requester, body.credential, tenant=message.tenant, task=message.task, now_unix_ms=now_unix_ms
            )
        else:
            unproven = await self.credentials.check_token(body.requester, body.credential)
        if unproven is not None:
            return self._refuse_grant(message, unproven)
        granted = decided.grant
        ref = await self._choose_release(message, body, granted.actor)
        if isinstance(ref, Failure):
            return self._refuse_grant(message, ref)
        if ref:
            granted = granted.model_copy(update={"release": ref})
        token = self._context.signer.sign_grant(granted)
        if len(token) > MAX_TOKEN_BYTES and decided.roles and body.drafted:
            # Nobody asked for these roles by name: a task that fits without them must not fail for them.
            log.warning("roles_left_out", tenant=message.tenant, task=message.task, grant_bytes=len(token))
            return await self.on_grant_requested(replace(message, body=body.model_copy(update={"drafted": False})))
        if len(token) > MAX_TOKEN_BYTES:
            reason = f"the grant takes {len(token)} bytes; {MAX_TOKEN_BYTES} fit beside a step grant"
            failure = Failure.from_text(
                "grant_too_large", reason, "name fewer tools in the request, or fewer and shorter constraints"
            )
            return self._refuse_grant(message, failure)
        actor, tools = decided.grant.actor, len(decided.tools)
        log.info("granted", tenant=message.tenant, task=message.task, actor=actor, tools=tools)
        return GrantReplied(
            granted=True,
            token=token,
            tools=decided.tools,
            left_out=decided.left_out,
            limits=decided.grant.limits,
            input=decided.input if decided.input != InputPolicy() else None,
            output=decided.output if decided.output != DRAFT else None,
            delegated=decided.grant.delegated,
            roles=decided.roles,
        )

    async def _choose_release(self, message: ReceivedMessage, body: GrantRequested, actor: str) -> str | Failure:
        """The release of prompts that the task keeps: `production`, or what it asks for. Raises BusError."""
        if body.purpose != "task":
            return ""
        if not body.release:
            release = self._labels.find_newest(message.tenant, PRODUCTION)
            return release.ref_for(message.task, actor) if release is not None else ""
        label, _, number = body.release.partition(".")
        subject = subjects.release_subject(message.tenant, label, number or "*")
        stored = await self._context.bus.last(subjects.PROMPTS_STREAM, subject)
        if stored is None:
            reason, hint = f"there is no release {body.release} of prompts", "GET /v1/releases lists the labels"
            return Failure.from_text("unknown_release", reason, hint)
        release = PromptRelease.model_validate_json(stored.body)
        return release.ref if number else release.ref_for(message.task, actor)

    async def on_signature_requested(self, message: ReceivedMessage) -> SignatureReplied:
        """A person's word about one call, signed."""
        body = message.body
        assert isinstance(body, SignatureRequested)
        unproven = await self.credentials.check_token(body.requester, body.credential)
        decided = unproven or decide_approval(
            self._loaded_policies, body, message.tenant, message.task, self._context.clock()
        )
        log_fields = {
            "tenant": message.tenant,
            "task": message.task,
            body.kind: body.approval_id,
            "by": body.requester.person,
        }
        if isinstance(decided, Failure):
            log.warning("approval_refused", **log_fields, code=decided.code, reason=decided.message)
            return SignatureReplied(failure=decided)
        log.info("approval_signed", **log_fields, decision=body.decision)
        return SignatureReplied(token=self._context.signer.sign_approval(decided))

    async def on_vouch_requested(self, message: ReceivedMessage) -> VouchReplied:
        """The signer's word that it has seen the requester's token."""
        body = message.body
        assert isinstance(body, VouchRequested)
        requester, now_unix_ms = body.requester, self._context.clock()
        if requester.via != "jwt" or not self.credentials.requires_token:
            return VouchReplied()
        if not subjects.may_open(message.sender, message.task):
            reason = f"{message.sender} opens no task of the id {message.task}"
            return VouchReplied(failure=Failure.from_text("foreign_id", reason, "this is a bug: look at its log"))
        # Whom no grant would be given is told now, and not when the task begins.
        asks = GrantRequested(requester=requester, purpose="ingest", requested_unix_ms=body.requested_unix_ms)
        decided = decide_grant(self._loaded_policies, asks, message.tenant, message.task, now_unix_ms)
        failure = decided if isinstance(decided, Failure) else None
        failure = failure or await self.credentials.check_token(requester, body.credential)
        if failure is not None:
            log.warning("not_vouched", tenant=message.tenant, task=message.task, code=failure.code)
            return VouchReplied(failure=failure)
        until = now_unix_ms + bounds.MAX_VOUCHED_MS
        voucher = self.credentials.make_voucher(requester, message.tenant, message.task, until)
        return VouchReplied(voucher=self._context.signer.sign_grant(voucher))

    async def on_tools_requested(self, message: ReceivedMessage) -> ToolsReplied:
        """The tools that a task of this requester could be granted; nothing is signed."""
        body = message.body
        assert isinstance(body, ToolsRequested)
        result = grantable_tools(self._loaded_policies, body.requester, message.tenant)
        return ToolsReplied(failure=result) if isinstance(result, Failure) else ToolsReplied(tools=result)

    def _refuse_grant(self, message: ReceivedMessage, failure: Failure) -> GrantReplied:
        tenant, task = message.tenant, message.task
        log.warning("grant_refused", tenant=tenant, task=task, code=failure.code, reason=failure.message)
        return GrantReplied(granted=False, code=failure.code, reason=failure.message, hint=failure.hint)


def _check_tool_tenants(
    policies: GrantPolicies, tenants_of: Mapping[str, tuple[str, ...]], whose: str, file: str
) -> None:
    """Raises TenantsFileError where a tenant is granted a tool of an MCP server, or agent, that is for other
    tenants.
    """
    for tenant, policy in policies.tenants.items():
        for tool in policy.tools:
            if tenant not in tenants_of.get(tool, (tenant,)):
                reason = f"tenants file: {tenant}: the {whose} of {tool} is for {', '.join(tenants_of[tool])} alone"
                raise TenantsFileError(f"{reason}; take the tool out, or add the tenant in the file of {file}")


def _read_tenants_file(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text())
    except OSError as error:
        reason = f"tenants file {path} cannot be read ({error.strerror})"
        raise TenantsFileError(f"{reason}; set BULKHEAD_TENANTS_FILE") from error
    except yaml.YAMLError as error:
        raise TenantsFileError(f"tenants file {path} is not YAML: {error}") from error

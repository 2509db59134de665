"""Composition root of tool_executor: calls come in, `core.ToolExecutor` answers, `effects.ToolRunner` acts;
notices and events come in, `outbound` posts them, and push notifications; `mcp` brings the tools of MCP servers, `a2a`
remote agents.
"""

from collections.abc import Callable
from functools import partial

import httpx

from bulkhead.policy.cedar import CedarPolicy
from bulkhead.policy.decision import decide
from bulkhead.quotas.tenant_quotas import TenantQuotas
from bulkhead.runtime.component import Component
from bulkhead.runtime.context import Context
from bulkhead.runtime.doer.attribution_process import Attributor
from bulkhead.runtime.doer.protocol import SideHandlers
from bulkhead.runtime.process.main import main
from bulkhead.tools.catalog import tool_rows
from bulkhead_contracts.approval import ApprovalRequested
from bulkhead_contracts.budget import NoticeRequested
from bulkhead_contracts.event import EventPostRequested
from bulkhead_contracts.push import PushConfigDeleted, PushPostRequested
from bulkhead_contracts.tool import ToolCallCancelRequested
from bulkhead_services.tool_executor.boundary.gate import Gate, RulingFunction
from bulkhead_services.tool_executor.boundary.policy_trials import PolicyFiles, PolicyTrials
from bulkhead_services.tool_executor.core import SERVICE, ToolExecutor
from bulkhead_services.tool_executor.effects import ToolRunner
from bulkhead_services.tool_executor.outbound.push import PushSender
from bulkhead_services.tool_executor.outbound.webhooks import Webhooks
from bulkhead_services.tool_executor.private_folders import remove_abandoned_folders
from bulkhead_services.tool_executor.process_pool import hide_from_tools
from bulkhead_services.tool_executor.registry import load_registry
from bulkhead_services.tool_executor.settings import POLICY_DIR, Settings
from bulkhead_services.tool_executor.watchdog import Watchdog


def build(
    context: Context,
    settings: Settings,
    transport: httpx.AsyncBaseTransport | None = None,
    watchdog: Watchdog | None = None,
    rule: RulingFunction | None = None,
) -> ToolExecutor:
    """The doer. `transport` stands in for the network, `rule` for the policy's files. Raises ValueError when a declared
    tool has no function, or a policy cannot be read."""
    runner = ToolRunner(settings, transport, watchdog)
    webhooks = Webhooks(settings, runner, context.clock)
    declared = tool_rows(settings.packs)
    registry = load_registry(settings.configured_names(), declared)
    cancel_handlers: SideHandlers = {}
    components: list[Component] = []
    offered = [row.spec for row in declared]
    # What these need was imported before the broker was called: Settings.needed_modules.
    if settings.mcp_file is not None:
        from bulkhead_services.tool_executor.mcp.tools import McpTools

        servers = McpTools(settings.mcp_file, registry, context.background)
        components.append(servers)
        offered += [tool.spec for tool in servers.offered_tools()]
    if settings.agents_file is not None:
        from bulkhead_services.tool_executor.a2a.tools import RemoteAgents

        agents = RemoteAgents(settings.agents_file, registry, context)
        components.append(agents)
        offered += [tool.spec for tool in agents.offered_tools()]
        cancel_handlers = {ToolCallCancelRequested: agents.on_cancel_requested}
    policy_details: dict[str, object] | None = None
    keeps_labels: Callable[[str], bool] = lambda tenant: False
    policy: CedarPolicy | None = None
    if rule is None:
        policy = CedarPolicy.load_folder(settings.policy_dir, offered, POLICY_DIR)
        rule, keeps_labels = partial(decide, policy=policy), policy.reads_shown
        policy_details = {"folder": str(settings.policy_dir), "sha256": policy.sha256, "packs": list(settings.packs)}
    attributor = Attributor(own_process=transport is None)
    gate = Gate(context, rule, runner.isolation_of, settings.approval_ttl_s * 1_000, keeps_labels, attributor)
    quotas = TenantQuotas(settings.tenants_file)
    pushes = PushSender(context, quotas, runner)
    trials = PolicyTrials(
        registry,
        declared,
        PolicyFiles(rule, policy),
        quotas if settings.tenants_file is not None else None,
        runner.isolation_of,
        runner.isolation_refusal,
    )
    post_handlers: SideHandlers = {
        **dict.fromkeys((EventPostRequested, NoticeRequested, ApprovalRequested), webhooks.on_post_requested),
        PushPostRequested: pushes.on_push_post_requested,
        PushConfigDeleted: pushes.on_push_config_deleted,
    }
    side_handlers = {**post_handlers, **cancel_handlers}
    return ToolExecutor(registry, runner, gate, side_handlers, tuple(components), policy_details, trials.rpc)


def build_watched(context: Context, settings: Settings) -> ToolExecutor:
    """The doer of a process: no tool may block its loop, and its own processes see nothing of it."""
    remove_abandoned_folders()
    doer = build(context, settings, watchdog=Watchdog(settings.tool_blocks_s))
    if doer.has_own_process_tools() or settings.mcp_file is not None:  # A server's process runs as the same user.
        hide_from_tools()
    return doer


if __name__ == "__main__":
    main(SERVICE, build_watched, Settings)

"""`bulkhead halt`, `resume`, `halts` and `breakers`: the arguments of each. `main` adds them to `bulkhead`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from bulkhead_cli.halts.target_of_halt import RequestedHaltTarget
from bulkhead_cli.invocation import CommandGroup
from bulkhead_cli.options import BrokerOrGatewayOptions, Options, reason_of
from bulkhead_cli.output import EXIT_CODES, CommandError, Exit, Work

if TYPE_CHECKING:
    from bulkhead_contracts.control import HaltScope

HaltReason = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Reason, shown to everybody whose work is held back.")
]
ResetReason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Repair that was made; stored as a fact.")]
ResumeReason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Reason, stored as a fact.")]
BreakerName = Annotated[
    str,
    typer.Argument(metavar="SCOPE:NAME", help="Name in the output of `bulkhead breakers`, for example tool:http_get."),
]
BreakerTenant = Annotated[
    str, typer.Option("--tenant", metavar="T", help="Tenant of the breaker, when several tenants have one.")
]


@dataclass(frozen=True, slots=True)
class HaltTargetOptions(Options):
    """The options that name the target of a halt."""

    task: Annotated[str, typer.Option("--task", metavar="TASK", help="Task.")] = ""
    agent: Annotated[
        str,
        typer.Option(
            "--agent", metavar="AGENT", help="Agent: worker.ROLE (the role of plan steps), worker, planner or checker."
        ),
    ] = ""
    tool: Annotated[str, typer.Option("--tool", metavar="TOOL", help="Tool.")] = ""
    model: Annotated[str, typer.Option("--model", metavar="MODEL", help="Model, by its name in replies.")] = ""
    feature: Annotated[
        str, typer.Option("--feature", metavar="FEATURE", help="Feature that tasks were submitted under.")
    ] = ""
    tenant: Annotated[
        str,
        typer.Option(
            "--tenant", metavar="T", help="Alone: everything of a tenant. With another option: for this tenant only."
        ),
    ] = ""

    def requested_target(self) -> RequestedHaltTarget:
        """The target. Raises CommandError when the options name none, or several."""
        names: dict[HaltScope, str] = {
            "task": self.task,
            "agent": self.agent,
            "tool": self.tool,
            "model": self.model,
            "feature": self.feature,
        }
        targets = [RequestedHaltTarget(scope, name, self.tenant) for scope, name in names.items() if name]
        if len(targets) > 1 or not (targets or self.tenant):
            raise CommandError(
                Exit.USAGE,
                "name one thing: --task, --agent, --tool, --model, --feature or --tenant",
                "--tenant beside one of the others means: only for this tenant",
            )
        return targets[0] if targets else RequestedHaltTarget("tenant", self.tenant)


def halt(reason: HaltReason, names: HaltTargetOptions, at: BrokerOrGatewayOptions) -> Work:
    """Halt a task, agent, tool, model, feature or tenant until it is resumed.

    The halt takes effect at once, also on work in flight: streams from models are cut, tool calls that have not
    started are postponed, and a write in progress finishes. Halted work is not lost, but the deadline of a task keeps
    running; [bold]bulkhead cancel[/bold] ends a task.

    With the operator's key in DIR, a halt holds for all tenants or, with --tenant, for one; only the broker has to
    run. With --url and --api-key of a tenant's operator, it holds for this tenant.

    Examples: bulkhead halt --tool http_get --reason "the site is under attack" · bulkhead halt --tenant acme --reason
    "its agents run wild"
    """
    from bulkhead_cli.halts.halts import switch_halt

    return switch_halt(
        at.data, at.remote_target(), names.requested_target(), reason_of(reason), active=True, as_json=at.as_json
    )


def resume(names: HaltTargetOptions, at: BrokerOrGatewayOptions, reason: ResumeReason = "") -> Work:
    """Resume halted work.

    Finished calls are not repeated; an answer of a model that was cut by the halt is requested again.
    """
    from bulkhead_cli.halts.halts import switch_halt

    stored_reason = reason_of(reason or "no reason was given")
    return switch_halt(
        at.data, at.remote_target(), names.requested_target(), stored_reason, active=False, as_json=at.as_json
    )


def halts(at: BrokerOrGatewayOptions) -> Work:
    """List active halts with their time, author and reason."""
    from bulkhead_cli.halts.halts import show_halts

    return show_halts(at.data, at.remote_target(), as_json=at.as_json)


breakers_app = CommandGroup(invoke_without_command=True, rich_markup_mode="rich", epilog=EXIT_CODES)


@breakers_app.callback()
def breakers(at: BrokerOrGatewayOptions) -> Work:
    """List circuit breakers that have opened, and reset them.

    A breaker of a tool, model, agent or tenant is open, half-open (trial calls are let through) or closed again.
    Without a subcommand, the breakers are listed with the reason for their state.
    """
    from bulkhead_cli.halts.halts import show_breakers

    return show_breakers(at.data, at.remote_target(), as_json=at.as_json)


@breakers_app.command("reset")
def reset(named: BreakerName, at: BrokerOrGatewayOptions, tenant: BreakerTenant = "", reason: ResetReason = "") -> Work:
    """Close a breaker whose cause has been repaired.

    With the operator's key in DIR, any breaker can be closed. With --url and --api-key, an operator of a tenant can
    close breakers of the tenant's tools, models and agents, except those that calls of the operator's own tasks opened.
    """
    from bulkhead_cli.halts.halts import reset_breaker

    stored_reason = " ".join(reason.split())[:1_000] or "no reason was given"
    return reset_breaker(at.data, at.remote_target(), named, tenant, stored_reason, as_json=at.as_json)

"""The `bulkhead` command: its subcommands by what people do. Each module `*_commands` holds the arguments of some."""

from collections.abc import Callable
from typing import Annotated

import typer

from bulkhead_cli.agents.commands import agents_app
from bulkhead_cli.approvals.commands import approvals_app
from bulkhead_cli.approvals.writes import writes_app
from bulkhead_cli.dead_letters.commands import letters_app
from bulkhead_cli.demo import commands as demo_commands
from bulkhead_cli.halts import commands as halts_commands
from bulkhead_cli.incident.commands import incident_app
from bulkhead_cli.inspect import commands as inspect_commands
from bulkhead_cli.inspect import gateway
from bulkhead_cli.invocation import CommandGroup, MainCommandGroup, flow_helps, show_version
from bulkhead_cli.limits import commands as limits_commands
from bulkhead_cli.mcp.commands import mcp_app
from bulkhead_cli.models.commands import models_app
from bulkhead_cli.operate import commands as operate_commands
from bulkhead_cli.output import EXIT_CODES, Work
from bulkhead_cli.policy.commands import policy_app
from bulkhead_cli.replay import commands as replay_commands
from bulkhead_cli.tasks import commands as tasks_commands
from bulkhead_cli.tasks import documents
from bulkhead_cli.tools.commands import tools_app

app = CommandGroup(
    name="bulkhead",
    cls=MainCommandGroup,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Version = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=show_version, help="Print the version and exit.")
]


@app.callback()
def top(version: Version = False) -> None:
    """A mesh of AI agents: durable, budgeted, each service with its own identity.

    [bold]bulkhead demo[/bold] shows a whole mesh at work. [bold]bulkhead up[/bold] starts one. [bold]bulkhead submit
    "What is refunded, and when?" --docs ./notes --watch[/bold] gives it a task and prints the answer. [bold]bulkhead
    timeline TASK[/bold] shows how the answer came about.
    """


PANELS: dict[str, tuple[Callable[..., Work], ...]] = {
    "Run a mesh": (demo_commands.demo, operate_commands.up, inspect_commands.doctor),
    "Tasks": (
        tasks_commands.submit,
        tasks_commands.watch,
        tasks_commands.tasks,
        tasks_commands.doors,
        tasks_commands.show,
        tasks_commands.cancel,
    ),
    "Inspect and explain": (
        inspect_commands.timeline,
        inspect_commands.why,
        inspect_commands.cite,
        limits_commands.spend,
        inspect_commands.report,
        *gateway.READS,
    ),
    "Limits and halts": (limits_commands.topup, halts_commands.halt, halts_commands.resume, halts_commands.halts),
    "Replay and analyse": (replay_commands.replay, replay_commands.export, replay_commands.analyze),
    "Operate": (operate_commands.backup, operate_commands.restore),
}
"""Commands by what people do, in the order in which `bulkhead --help` shows them."""
HELPS: dict[Callable[..., Work], str] = {tasks_commands.submit: tasks_commands.SUBMIT_HELP}
"""Texts that name figures, in place of docstrings."""

for panel, commands in PANELS.items():
    for command in commands:
        app.command(rich_help_panel=panel, help=HELPS.get(command))(command)

app.add_typer(documents.documents_app, name="documents", rich_help_panel="Tasks")
app.add_typer(models_app, name="models", rich_help_panel="Inspect and explain")
app.add_typer(approvals_app, name="approvals", rich_help_panel="Tasks")
app.add_typer(writes_app, name="writes", rich_help_panel="Tasks")
app.add_typer(limits_commands.limits_app, name="limits", rich_help_panel="Limits and halts")
app.add_typer(halts_commands.breakers_app, name="breakers", rich_help_panel="Limits and halts")
app.add_typer(tools_app, name="tools", rich_help_panel="Run a mesh", help="List, show, try and make tools.")
app.add_typer(mcp_app, name="mcp", rich_help_panel="Operate")
app.add_typer(agents_app, name="agents", rich_help_panel="Operate")
app.add_typer(policy_app, name="policy", rich_help_panel="Limits and halts")
app.add_typer(letters_app, name="dead-letters", rich_help_panel="Operate")
app.add_typer(incident_app, name="incident", rich_help_panel="Operate")
app.add_typer(operate_commands.render_app, name="render", rich_help_panel="Operate")
flow_helps(app)

if __name__ == "__main__":
    app()

"""The `bulkhead` command: its subcommands by what people do.

A command's module is imported when that command runs: `bulkhead --help` imports none.
"""

from typing import Annotated

import typer

from bulkhead_cli.invocation import CommandGroup, CommandRow, MainCommandGroup, flow_helps, show_version
from bulkhead_cli.output import EXIT_CODES

PANELS: dict[str, tuple[CommandRow, ...]] = {
    "Run a mesh": (
        CommandRow("demo", "demo.commands:demo", "Run a whole mesh once on a generated case, and check its answer."),
        CommandRow("up", "operate.commands:up", "Start a mesh and keep it running in the foreground."),
        CommandRow("open", "console.commands:open_console", "Open the console, or a task in it, signed in."),
        CommandRow("doctor", "inspect.commands:doctor", "Check everything that a mesh depends on."),
        CommandRow("tools", "tools.commands:tools_app", "List, show, try and make tools."),
    ),
    "Tasks": (
        CommandRow("submit", "tasks.submission:submit", "Submit an objective as a new task."),
        CommandRow("chat", "tasks.chat:chat", "Talk to the mesh, which remembers what was said."),
        CommandRow("sessions", "tasks.sessions:sessions_app", "List your conversations, or erase a person's."),
        CommandRow("watch", "tasks.commands:watch", "Follow a task from its start to its end and print its answer."),
        CommandRow("tasks", "tasks.commands:tasks", "List the tenant's tasks, newest first."),
        CommandRow(
            "doors",
            "tasks.commands:doors",
            "Show who is outside: agents' runs, newest first, spend, delegated steps, subscribers.",
        ),
        CommandRow("show", "tasks.commands:show", "Show a task: its steps, its answer and its cost."),
        CommandRow("cancel", "tasks.commands:cancel", "Cancel a task."),
        CommandRow("rate", "tasks.commands:rate", "Say whether a task's answer is good."),
        CommandRow(
            "documents",
            "tasks.documents:documents_app",
            "List, show, search, add or delete the documents that the tenant's tasks search.",
        ),
        CommandRow(
            "approvals",
            "approvals.commands:approvals_app",
            "List calls that wait for a person's word, and grant or deny them.",
        ),
        CommandRow("plan", "approvals.plans:plans_app", "Show, approve or reject a drafted plan, or skip a step."),
        CommandRow(
            "writes",
            "approvals.writes:writes_app",
            "List writes of which nobody knows whether they were done, and say what became of one.",
        ),
    ),
    "Workflows": (
        CommandRow(
            "workflows",
            "workflows.commands:workflows_app",
            "List, draft, review, publish, run and schedule plans with parameters.",
        ),
        CommandRow("events", "workflows.events:events_app", "Tell the mesh what happened outside."),
    ),
    "Prompts": (
        CommandRow(
            "prompts",
            "prompts.commands:prompts_app",
            "List, change and release what models are told: versions and labels.",
        ),
    ),
    "Inspect and explain": (
        CommandRow(
            "timeline",
            "inspect.commands:timeline",
            "Show the messages of a task by step, with arguments, results, waits and cost.",
        ),
        CommandRow(
            "why",
            "inspect.commands:why",
            "Tell the story of a task that has ended, or explain why one waits, and how to go on.",
        ),
        CommandRow(
            "cite",
            "inspect.commands:cite",
            "Show what stands behind the citations of an answer, also after its documents changed.",
        ),
        CommandRow(
            "spend",
            "limits.commands:spend",
            "Sum up the cost of a tenant's calls by agent, step, user, model and more.",
        ),
        CommandRow(
            "quality",
            "inspect.quality:quality",
            "Show how good the answers of ended tasks are, by feature, prompt or model.",
        ),
        CommandRow(
            "report",
            "inspect.commands:report",
            "Compare quality, cost and latency of models and features, or of prompts by version.",
        ),
        CommandRow(
            "mesh",
            "inspect.gateway:mesh",
            "Show each service's replicas, waiting messages, failures, and the messages between them.",
        ),
        CommandRow(
            "models",
            "models.commands:models_app",
            "List the routes to models, compare them on cases of your own, or probe them for drift.",
        ),
        CommandRow(
            "eval",
            "evaluation.commands:eval_app",
            "Run sets of cases with checks, compare runs and models, and make cases of tasks.",
        ),
    ),
    "Limits and halts": (
        CommandRow("topup", "limits.commands:topup", "Raise the limits of one task by an amount."),
        CommandRow(
            "halt", "halts.commands:halt", "Halt a task, agent, tool, model, feature or tenant until it is resumed."
        ),
        CommandRow("resume", "halts.commands:resume", "Resume halted work."),
        CommandRow("halts", "halts.commands:halts", "List active halts with their time, author and reason."),
        CommandRow("limits", "limits.commands:limits_app", "Show and change a tenant's limits."),
        CommandRow(
            "breakers", "halts.commands:breakers_app", "List circuit breakers that have opened, and reset them."
        ),
        CommandRow(
            "policy",
            "policy.commands:policy_app",
            "Check, test, explain and compare the policies of tools, and decide about recorded calls.",
        ),
    ),
    "Replay and analyse": (
        CommandRow(
            "replay",
            "replay.commands:replay",
            "Replay a task's decisions and compare them with the record, or fork the task.",
        ),
        CommandRow(
            "export",
            "replay.commands:export",
            "Export a task's whole history to one file that can be replayed on any machine.",
        ),
        CommandRow(
            "analyze",
            "replay.commands:analyze",
            "Find loops, deadlocks, chatter and stalls in a recorded run of any system.",
        ),
    ),
    "Operate": (
        CommandRow("backup", "operate.commands:backup", "Back up a running or stopped mesh to one file."),
        CommandRow("restore", "operate.commands:restore", "Restore a mesh from a backup."),
        CommandRow(
            "mcp", "mcp.commands:mcp_app", "List the MCP servers and their pinned tools, or pin the tools of a server."
        ),
        CommandRow(
            "agents",
            "agents.commands:agents_app",
            "List the remote agents, add one, or look whether their cards changed.",
        ),
        CommandRow(
            "dead-letters",
            "dead_letters.commands:letters_app",
            "List, send again or dismiss messages that a service could not handle.",
        ),
        CommandRow("incident", "incident.commands:incident_app", "Gather what an on-call needs."),
        CommandRow(
            "render", "operate.commands:render_app", "Write configuration for a broker or a monitoring of your own."
        ),
        CommandRow(
            "completion", "completion:completion", "Print a script that completes words of this command in a shell."
        ),
    ),
}
"""Commands by what people do, in the order in which `bulkhead --help` shows them."""


class BulkheadCommands(MainCommandGroup):
    """The commands of the table."""

    rows = tuple(row._replace(panel=panel) for panel, rows in PANELS.items() for row in rows)


app = CommandGroup(
    name="bulkhead",
    cls=BulkheadCommands,
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


flow_helps(app)

if __name__ == "__main__":
    app()

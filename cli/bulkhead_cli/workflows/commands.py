"""`bulkhead workflows`: plans with parameters, as versions that people review, publish, run and schedule.

In: the gateway, as a person; files of YAML. Out: text or JSON, and an exit code.
"""

import json
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from bulkhead.client import Mesh
from bulkhead.text import amounts
from bulkhead.tools.catalog import tool_rows
from bulkhead.workflows.compose import list_workflow_problems, plain_tool
from bulkhead.workflows.difference import FieldChange, compare_workflows
from bulkhead.workflows.files import read_workflow, workflow_schema, write_workflow
from bulkhead.workflows.saved import save_task
from bulkhead.workflows.schedules import next_runs
from bulkhead_cli.invocation import CommandGroup
from bulkhead_cli.options import GatewayOptions, IdempotencyKey, RequireComplete, reason_of
from bulkhead_cli.output import EXIT_CODES, CommandError, Exit, one_line, print_json
from bulkhead_cli.prompts.canaries import print_watch
from bulkhead_cli.screen import err, out
from bulkhead_cli.tasks import follow
from bulkhead_contracts.workflow import WorkflowContent, WorkflowSchedule

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the workflow: weekly-report.")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="File of the workflow, NAME.yaml.")]
Version = Annotated[int, typer.Option("--version", metavar="N", help="Version.", show_default="the newest")]
Why = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Reason; stored with what you do.")]
Note = Annotated[str, typer.Option("--note", metavar="TEXT", help="What changes, and why; stored with the version.")]
Values = Annotated[
    list[str] | None, typer.Option("-p", "--parameter", metavar="NAME=VALUE", help="Parameter; may be repeated.")
]
NEXT = {
    "draft": "bulkhead workflows submit-for-review {name}",
    "in_review": "bulkhead workflows approve {name}, by another person",
    "approved": "bulkhead workflows publish {name}",
    "published": "bulkhead workflows run {name}",
    "retired": "draft it again",
}

SHOWN_RUNS = 3

workflows_app = CommandGroup(invoke_without_command=True, rich_markup_mode="rich", epilog=EXIT_CODES)


@workflows_app.callback()
async def show_workflows(at: GatewayOptions) -> None:
    """List, draft, review, publish, run and schedule plans with parameters.

    A version never changes. Another person than who drafted it approves it; a published one runs without a model that
    plans. Without a subcommand, the workflows are listed.
    """
    await _print_workflows(at)


@workflows_app.command("list")
async def list_workflows(at: GatewayOptions) -> None:
    """List the workflows: of each the newest version, and the newest that is published."""
    await _print_workflows(at)


@workflows_app.command("show")
async def show_workflow(name: Name, at: GatewayOptions, version: Version = 0) -> None:
    """Show a version of a workflow as its file, with its history."""
    async with at.gateway_target().mesh_client() as mesh:
        document = await mesh.workflow(name, version)
    if at.as_json:
        print_json(document)
        return
    row, content = document["row"], WorkflowContent.model_validate(document["version"]["content"])
    out.print(f"# {name}.{row['number']}: {_state_of(row)}, sha256 {row['sha256'][:12]}", markup=False)
    when = amounts.format_time(row["drafted_unix_ms"])
    out.print(one_line(f"# {when}  {row['person']} drafted it: {document['version']['note']}"), markup=False)
    for fact in row["transitions"]:
        when = amounts.format_time(fact["moved_unix_ms"])
        out.print(one_line(f"# {when}  {fact['person']}: {fact['action']}: {fact['reason']}"), markup=False)
    if document.get("schedule_obstacle"):
        out.print(one_line(f"# no run begins by itself: {document['schedule_obstacle']}"), markup=False)
    out.print(write_workflow(content), markup=False, end="")


@workflows_app.command("diff")
async def diff_versions(
    name: Name,
    at: GatewayOptions,
    old: Annotated[int, typer.Option("--from", metavar="N", help="Older.", show_default="one before")] = 0,
    new: Annotated[int, typer.Option("--to", metavar="N", help="Newer.", show_default="the newest")] = 0,
) -> None:
    """Compare two versions by their structure: steps, parameters and fields that came, went or changed."""
    async with at.gateway_target().mesh_client() as mesh:
        new = new or (await _read_newest(mesh, name))["number"]
        old = old or new - 1
        if old < 1:
            raise CommandError(Exit.USAGE, f"{name} has one version alone", "name two with --from and --to")
        contents = [
            WorkflowContent.model_validate((await mesh.workflow(name, number))["version"]["content"])
            for number in (old, new)
        ]
    changes = compare_workflows(*contents)
    if at.as_json:
        print_json({"from": f"{name}.{old}", "to": f"{name}.{new}", "changes": [row._asdict() for row in changes]})
        return
    for change in changes:
        _print_change(change)
    if not changes:
        out.print(f"{name}.{old} and {name}.{new} do the same", markup=False)


@workflows_app.command("schema")
def print_schema(at: GatewayOptions) -> None:
    """Print the JSON schema of workflow files, for editors that complete and check YAML."""
    print_json(workflow_schema())


@workflows_app.command("check")
async def check_file(file: File, at: GatewayOptions) -> Exit:
    """Check a file as the planner checks a plan, with the tools and workflows of the gateway's tenant."""
    content = _read_file(file)
    async with at.gateway_target().mesh_client() as mesh:
        shipped_tools = {row.spec.name: row.spec for row in tool_rows()}
        names = [tool.name for tool in (await mesh.tools()).tools]
        tools = [shipped_tools.get(name) or plain_tool(name) for name in names]
        nested: dict[str, WorkflowContent] = {}
        for ref in content.nested_refs:
            inner_name, _, number = ref.partition(".")
            document = await mesh.workflow(inner_name, int(number))
            for version in (document["version"], *document["nested"]):
                inner = WorkflowContent.model_validate(version["content"])
                nested[f"{version['workflow']}.{version['number']}"] = inner
    problems = list_workflow_problems(content, nested, tools)
    if at.as_json:
        print_json({"file": str(file), "sha256": content.sha256, "problems": problems})
    else:
        for problem in problems:
            out.print(f"{file}: {problem}", markup=False)
        if not problems:
            steps, parameters = len(content.steps), len(content.parameters)
            out.print(f"{file}: {steps} steps, {parameters} parameters", markup=False)
    return Exit.FAILED if problems else Exit.OK


@workflows_app.command("draft")
async def draft_file(file: File, at: GatewayOptions, note: Note = "") -> None:
    """Draft the next version of the workflow of the file's name."""
    content = _read_file(file)
    async with at.gateway_target().mesh_client() as mesh:
        _print_row(at, await mesh.draft_workflow(file.stem, content.to_document(), _require_text("--note", note)))


@workflows_app.command("save")
async def save_from_task(
    task: Annotated[str, typer.Argument(metavar="TASK", help="Task that succeeded.")],
    at: GatewayOptions,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the workflow.")] = "",
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter",
            metavar="NAME=VALUE",
            help="Parameter in the place of a value that stands in the task's texts; may be repeated.",
        ),
    ] = None,
    note: Note = "",
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="Write a file, and draft nothing.")
    ] = None,
) -> None:
    """Make a workflow of a task that went well: its plan as it was run, and its options.

    Example: bulkhead workflows save t3k2 --name weekly-report --parameter topic="fares of ferries"
    """
    values = _read_pairs(parameter)
    if not name and file is None:
        raise CommandError(Exit.USAGE, "a workflow needs a name", "--name NAME, or --file FILE to look at it first")
    async with at.gateway_target().mesh_client() as mesh:
        steps: list[dict[str, Any]] = []
        async for event in mesh.task(task).events():
            if event.name == "plan.adopted":
                steps = event.data["plan"]["steps"]
        try:
            content = save_task(await mesh.task(task).show(), steps, values)
        except ValueError as error:
            raise CommandError(
                Exit.REFUSED, f"no workflow can be made of it: {error}", "choose another task"
            ) from error
        if file is not None:
            file.write_text(write_workflow(content))
            out.print(f"written to {file}", markup=False)
            return
        cause = reason_of(note or f"saved from task {task}")
        _print_row(at, await mesh.draft_workflow(name, content.to_document(), cause, source_task=task))


@workflows_app.command("submit-for-review")
async def submit_for_review(name: Name, at: GatewayOptions, version: Version = 0, reason: Why = "") -> None:
    """Ask another person to review a draft."""
    await _move_version(at, name, version, "submit", reason or "ready for review")


@workflows_app.command("approve")
async def approve_version(name: Name, at: GatewayOptions, version: Version = 0, reason: Why = "") -> None:
    """Approve a version that another person drafted, as it stands now."""
    await _move_version(at, name, version, "approve", _require_text("--reason", reason))


@workflows_app.command("reject")
async def reject_version(name: Name, at: GatewayOptions, version: Version = 0, reason: Why = "") -> None:
    """Send a version back to be a draft."""
    await _move_version(at, name, version, "reject", _require_text("--reason", reason))


@workflows_app.command("publish")
async def publish_version(name: Name, at: GatewayOptions, version: Version = 0, reason: Why = "") -> None:
    """Publish an approved version: people and programs can run it from now on."""
    await _move_version(at, name, version, "publish", reason or "approved")


@workflows_app.command("canary")
async def try_version(
    act: Annotated[
        Literal["start", "status", "stop"],
        typer.Argument(metavar="start|status|stop", help="Start one or change its share, see how it does, end it."),
    ],
    name: Name,
    at: GatewayOptions,
    percent: Annotated[int, typer.Option("--percent", metavar="P", min=1, max=50, help="Share of the runs.")] = 10,
    by_person: Annotated[bool, typer.Option("--by-person", help="Share people out, and not runs.")] = False,
    version: Version = 0,
    reason: Why = "",
) -> None:
    """Try an approved version on a share of the runs that name no version.

    The mesh compares how they end with the others, and ends a canary that does worse; publish one that does well.
    """
    if act == "start":
        share: dict[str, Any] = {"percent": percent, "sticky_by": "person" if by_person else "task"}
        await _move_version(at, name, version, "publish", _require_text("--reason", reason), canary=share)
        return
    async with at.gateway_target().mesh_client() as mesh:
        document = await mesh.workflow(name)
    row = next((row for row in document["versions"] if row.get("canary")), None)
    if act == "status":
        _print_canary(at, name, document, row)
    elif row is None:
        raise CommandError(Exit.REFUSED, f"{name} has no canary", f"`bulkhead workflows canary status {name}`")
    else:
        text = _require_text("--reason", reason)
        await _move_version(at, name, row["number"], "publish", text, canary={"percent": 0})


@workflows_app.command("retire")
async def retire_version(name: Name, at: GatewayOptions, version: Version = 0, reason: Why = "") -> None:
    """Retire a version: it runs no more, and neither does what nests it."""
    await _move_version(at, name, version, "retire", _require_text("--reason", reason))


@workflows_app.command("schedule")
async def schedule_workflow(
    name: Name,
    at: GatewayOptions,
    cron: Annotated[str, typer.Option("--cron", metavar="CRON", help="Five fields: '0 7 * * 1-5'.")],
    zone: Annotated[str, typer.Option("--zone", metavar="ZONE", help="Time zone: Europe/Berlin.")] = "UTC",
    missed: Annotated[
        Literal["skip", "run_once"],
        typer.Option("--missed", help="Runs whose time passed while nobody could begin them."),
    ] = "skip",
    paused: Annotated[bool, typer.Option("--paused", help="Begin no run until it is set again without this.")] = False,
    parameter: Values = None,
    version: Version = 0,
    reason: Why = "",
) -> None:
    """Run a published version at times, in your name."""
    schedule: dict[str, Any] = {"cron": cron, "zone": zone, "missed": missed, "parameters": _read_pairs(parameter)}
    schedule |= {"paused": True} if paused else {}
    cause = reason or f"at {cron} in {zone}"
    await _move_version(at, name, version, "schedule", cause, published=True, schedule=schedule)


@workflows_app.command("trigger")
async def trigger_workflow(
    name: Name,
    at: GatewayOptions,
    event: Annotated[str, typer.Option("--on", metavar="EVENT", help="Event from outside: order.paid.")],
    source: Annotated[
        list[str],
        typer.Option("--from", metavar="NAME", help="Person or publisher whose events count; may be repeated."),
    ],
    key: Annotated[str, typer.Option("--key", metavar="KEY", help="Key of the events.", show_default="any")] = "",
    field: Annotated[
        list[str] | None,
        typer.Option(
            "--field", metavar="NAME=POINTER", help="Parameter from the event's body, order=/id; may be repeated."
        ),
    ] = None,
    most: Annotated[int, typer.Option("--runs-per-minute", metavar="N", help="More events are refused.")] = 10,
    parameter: Values = None,
    version: Version = 0,
    reason: Why = "",
) -> None:
    """Run a published version whenever an event comes from outside, in your name; in the place of a schedule.

    Example: bulkhead workflows trigger refund --on order.cancelled --from shop --field order=/id
    """
    trigger = {"event": event, "key": key, "sources": source, "runs_per_minute": most}
    trigger |= {"parameters": _read_pairs(parameter), "fields": _read_pairs(field)}
    await _move_version(at, name, version, "schedule", reason or f"on {event}", published=True, trigger=trigger)


@workflows_app.command("unschedule")
async def unschedule_workflow(name: Name, at: GatewayOptions, version: Version = 0, reason: Why = "") -> None:
    """End the schedule or the trigger of a version."""
    if not version:
        async with at.gateway_target().mesh_client() as mesh:
            rows = [row for row in (await mesh.workflow(name))["versions"] if _binding_of(row)]
        if len(rows) > 1:
            texts = ", ".join(f"{row['number']} ({_binding_of(row)})" for row in rows)
            raise CommandError(Exit.USAGE, f"several versions of {name} begin runs: {texts}", "choose: --version N")
        version = rows[0]["number"] if rows else 0
    await _move_version(at, name, version, "unschedule", reason or "no longer wanted", published=True)


@workflows_app.command("run")
async def run_version(
    name: Name,
    at: GatewayOptions,
    parameter: Values = None,
    version: Annotated[
        int, typer.Option("--version", metavar="N", help="Version.", show_default="the newest published one")
    ] = 0,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the task and print its answer.")] = False,
    require_complete: RequireComplete = False,
    idempotency_key: IdempotencyKey = "",
) -> Exit:
    """Run a published version as a task.

    Example: bulkhead workflows run weekly-report -p topic="fares of ferries" --watch
    """
    values = _read_pairs(parameter)
    async with at.gateway_target(may_make_key=True).mesh_client() as mesh:
        task = await mesh.run_workflow(name, values, version=version, idempotency_key=idempotency_key)
        if at.as_json:
            print_json({"event": "submitted", "task_id": task.id, "workflow": name})
        else:
            out.print(task.id, markup=False)
        if watch:
            return await follow.watch_to_end(task, out, as_json=at.as_json, complete=require_complete)
    if not at.as_json:
        err.print(f"follow it: bulkhead watch {task.id}", style="dim", markup=False)
    return Exit.OK


async def _move_version(
    at: GatewayOptions,
    name: str,
    version: int,
    action: str,
    reason: str,
    *,
    canary: dict[str, Any] | None = None,
    published: bool = False,
    schedule: dict[str, Any] | None = None,
    trigger: dict[str, Any] | None = None,
) -> None:
    """Do something with a version as it stands now; with none named the newest, or the newest that is published."""
    async with at.gateway_target().mesh_client() as mesh:
        newest = published or version
        row = (await mesh.workflow(name, version))["row"] if newest else await _read_newest(mesh, name)
        done = await mesh.move_workflow(
            name,
            row["number"],
            action,
            row["sha256"],
            reason_of(reason),
            schedule=schedule,
            trigger=trigger,
            canary=canary,
        )
    _print_row(at, done)


async def _read_newest(mesh: Mesh, name: str) -> dict[str, Any]:
    versions: list[dict[str, Any]] = (await mesh.workflow(name))["versions"]
    return max(versions, key=lambda row: int(row["number"]))


async def _print_workflows(at: GatewayOptions) -> None:
    async with at.gateway_target().mesh_client() as mesh:
        page = await mesh.workflows()
    if at.as_json:
        print_json(page)
        return
    for row in page["workflows"]:
        name = f"{row['workflow']}.{row['number']}"
        line = f"{name:32} {_state_of(row):12} {row['person']:16} {row['description']}  {_binding_of(row)}"
        out.print(one_line(line), markup=False)
    if not page["workflows"]:
        out.print("no workflows: `bulkhead workflows save TASK --name NAME` makes one of a task", markup=False)


def _print_canary(at: GatewayOptions, name: str, document: dict[str, Any], row: dict[str, Any] | None) -> None:
    """The canary that stands, of the version of this row; without one, the one that was rolled back last."""
    release = document.get("release") or {}
    watch = document.get("watch") or release.get("rolled_back")
    if at.as_json:
        print_json({"canary": watch, "version": row["number"] if row else 0, "release": release.get("number", 0)})
        return
    if row is not None:
        unit = "people" if row["canary"]["sticky_by"] == "person" else "runs"
        line = f"{name}.{row['number']}, for {row['canary']['percent']} % of {unit}: {release['reason']}"
        out.print(one_line(line), markup=False)
    if watch is not None:
        print_watch(name, watch)
    elif row is None:
        out.print(f"{name} has no canary", markup=False)


def _print_row(at: GatewayOptions, row: dict[str, Any]) -> None:
    if at.as_json:
        print_json(row)
        return
    name, binding = f"{row['workflow']}.{row['number']}", _binding_of(row)
    following = f"next: {NEXT[row['state']].format(name=row['workflow'])}"
    if binding:
        following = (
            f"it runs {binding}, until: bulkhead workflows unschedule {row['workflow']} --version {row['number']}"
        )
    elif row["transitions"] and row["transitions"][-1]["action"] == "unschedule":
        following = "nothing begins runs of it but people and programs"
    out.print(one_line(f"{name} is {_state_of(row)}; {following}"), markup=False)
    if (schedule := row.get("schedule")) and not schedule.get("paused"):
        runs = next_runs(WorkflowSchedule.model_validate(schedule), time.time_ns() // 1_000_000, SHOWN_RUNS)
        out.print(f"next runs: {', '.join(f'{run:%a %d %b %Y %H:%M %Z}' for run in runs)}", markup=False)


def _binding_of(row: dict[str, Any]) -> str:
    """Schedule or trigger of a version, in words; "" where it has none."""
    if row["state"] == "published" and (trigger := row.get("trigger")):
        return f"on {trigger['event']} {trigger.get('key', '')}".rstrip()
    if row["state"] == "published" and (schedule := row.get("schedule")):
        return f"at {schedule['cron']} {schedule['zone']}{' (paused)' if schedule.get('paused') else ''}"
    return ""


def _print_change(change: FieldChange) -> None:
    mark, style = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}[change.change]
    values = [value for value in (change.before, change.after) if value is not None]
    texts = [value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values]
    out.print(one_line(f"{mark} {change.place}: {' -> '.join(texts)}"), style=style, markup=False)


def _state_of(row: dict[str, Any]) -> str:
    share = f", {row['canary']['percent']} % canary" if row.get("canary") else ""
    return f"{row['state'].replace('_', ' ')}{share}"


def _read_file(path: Path) -> WorkflowContent:
    """The content of a file. Raises CommandError."""
    try:
        return read_workflow(path.read_text())
    except OSError as error:
        raise CommandError(Exit.USAGE, f"{path} cannot be read: {error.strerror}", "check its path") from error
    except ValueError as error:
        hint = "`bulkhead workflows schema` prints what a file holds"
        raise CommandError(Exit.USAGE, f"{path} is no workflow: {error}", hint) from error


def _read_pairs(texts: list[str] | None) -> dict[str, str]:
    """Names with values. Raises CommandError."""
    pairs = [text.partition("=") for text in texts or ()]
    if any(not separator for _, separator, _ in pairs):
        raise CommandError(Exit.USAGE, "a parameter has no =", "write topic=ferries")
    return {name: value for name, _, value in pairs}


def _require_text(option: str, text: str) -> str:
    if not text.strip():
        raise CommandError(Exit.USAGE, f"{option} is missing", f"{option} TEXT says why")
    return reason_of(text)

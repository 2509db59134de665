"""`bulkhead replay`, `export` and `analyze`: the arguments of each. `main` adds them to `bulkhead`."""

from pathlib import Path
from typing import Annotated

import typer

from bulkhead_cli.options import BrokerOrGatewayOptions, Form, Json, RequireComplete, TaskId, TaskTenant
from bulkhead_cli.output import CommandError, Exit, Work
from bulkhead_contracts import subjects

TaskOrFile = Annotated[
    str,
    typer.Argument(
        metavar="TASK|FILE",
        help="Task id, or a file written by [bold]bulkhead export[/bold] (./NAME for a name without dot and slash).",
    ),
]
Every = Annotated[bool, typer.Option("--all", help="Replay every task in the journal.")]
FromStep = Annotated[
    str | None,
    typer.Option(
        "--from-step",
        metavar="N",
        help="Fork the task: a new task runs this step (its id, or its number in the plan) and all steps that depend "
        "on it, and reuses the recorded results of the others.",
    ),
]
EditFile = Annotated[
    str,
    typer.Option(
        "--edit",
        metavar="FILE",
        help="JSON object with the changes for the fork: objective, limits, and title, instruction, acceptance, tools, "
        "inputs, role of the step. `-` reads standard input.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the effects of the fork without submitting it.")]
Watch = Annotated[bool, typer.Option("--watch", help="Follow the fork and print its answer.")]
OutputFile = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE",
        help="File to write, compressed when its name ends in .gz; without it, standard output.",
    ),
]
RunFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="Recorded run, plain or compressed with gzip. `-` reads standard input.")
]
FormOption = Annotated[
    Form,
    typer.Option(
        "--form",
        help="Format of the file. bulkhead: written by [bold]bulkhead export[/bold]. rows: one JSON object per act. "
        "otel: OpenTelemetry GenAI spans. openai: chats with messages.",
    ),
]
RowsOnly = Annotated[bool, typer.Option("--rows", help="Print the converted rows and run no detector.")]


def replay(
    context: typer.Context,
    at: BrokerOrGatewayOptions,
    task: TaskOrFile = "",
    every: Every = False,
    from_step: FromStep = None,
    edit: EditFile = "",
    dry_run: DryRun = False,
    watch: Watch = False,
    require_complete: RequireComplete = False,
    tenant: TaskTenant = "",
) -> Work:
    """Replay a task's decisions and compare them with the record, or fork the task.

    A replay runs every decider of the task again on the recorded messages and compares each decision byte for byte.
    No provider is called and no message is sent. A FILE needs no mesh. With --url and --api-key a gateway exports the
    task, and the decisions are made here. The exit code is 1 at a divergence, and the
    first one is shown; --all goes on to the last task and prints a summary.

    --from-step forks a task that has ended: a new task under a new grant, submitted through the gateway (--url,
    --api-key). Reused results are neither computed nor paid again. Repeated side effects are listed first; a fork that
    would repeat a write without an idempotency key is refused.

    Examples: bulkhead replay TASK · bulkhead replay task.jsonl.gz · bulkhead replay TASK --from-step 3 --edit new.json
    """
    from bulkhead_cli.replay import replay as replaying

    if every == bool(task):
        raise CommandError(Exit.USAGE, "name one task or file, or --all", "see `bulkhead replay --help`")
    if from_step == "":  # An empty variable of a script: the caller meant a fork, not a comparison.
        raise CommandError(Exit.USAGE, "--from-step names no step", "say its id, or its number in the plan, from 1")
    if from_step:
        from bulkhead_cli.replay.fork import ForkEdit, fork_task, read_edit

        if not task or _is_file(task):
            raise CommandError(
                Exit.USAGE, "--from-step needs a task of a running mesh", "`bulkhead tasks` lists the ids"
            )
        changes = read_edit(edit) if edit else ForkEdit()
        options = {"watch": watch, "dry_run": dry_run, "complete": require_complete}
        return fork_task(at, _task_token(task), from_step, changes, tenant=tenant, **options)
    if edit or dry_run or watch or require_complete:
        raise CommandError(
            Exit.USAGE,
            "--edit, --dry-run, --watch and --require-complete belong to --from-step",
            "name the step from which on the task is to run again",
        )
    by_url = any(str(context.get_parameter_source(name)).endswith("COMMANDLINE") for name in ("url", "api_key"))
    if by_url and (every or _is_file(task)):
        raise CommandError(
            Exit.USAGE,
            "--url and --api-key belong to a task's id",
            "--all reads the broker, on the mesh's machine (--data); a file of `export` needs neither",
        )
    if tenant and (every or _is_file(task)):
        raise CommandError(Exit.USAGE, "--tenant belongs to a task's id", "leave it out")
    if every:
        return replaying.show_all(at.data, as_json=at.as_json)
    if _is_file(task):
        return replaying.show_file(Path(task), as_json=at.as_json)
    if target := at.remote_target():
        if tenant:
            raise CommandError(
                Exit.USAGE, "--tenant belongs to a mesh of this machine", "a gateway knows the key's tenant"
            )
        return replaying.show_remote_task(target, _task_token(task), as_json=at.as_json)
    return replaying.show_task(at.data, _task_token(task), tenant, as_json=at.as_json)


def export(task: TaskId, at: BrokerOrGatewayOptions, to: OutputFile = None, tenant: TaskTenant = "") -> Work:
    """Export a task's whole history to one file that can be replayed on any machine.

    The file contains every message of the task with its headers, and all content that they refer to: the objective,
    passages, parts of prompts, answers, tool results, and the names of persons and tenants. Treat it like those
    documents. It contains neither keys nor signatures of grants, so it gives nobody any authority. The same history
    always gives the same bytes. With --url and --api-key a gateway is asked, which has bounds of its own.
    """
    from bulkhead_cli.replay.export import show_export, show_remote_export

    if target := at.remote_target():
        return show_remote_export(target, task, to, as_json=at.as_json)
    return show_export(at.data, task, to, tenant, as_json=at.as_json)


def analyze(file: RunFile, form: FormOption = "auto", rows: RowsOnly = False, as_json: Json = False) -> Work:
    """Find loops, deadlocks, chatter and stalls in a recorded run of any system.

    The detectors are those that watch a running mesh. A row of the plain format: {"task": "t1", "agent": "a",
    "action": "search", "arguments": {"q": "x"}, "result": "nothing", "waits_on": ["b"], "tokens": 120,
    "time_unix_ms": 1790000000000}. Only the agent is required. docs/how-to/analyze.md describes all formats.

    The exit code is 1 when a detector would have stopped something, and 0 when there are only warnings.

    Examples: bulkhead analyze task.jsonl.gz · bulkhead analyze spans.json --form otel --json · curl ... |
    bulkhead analyze -
    """
    from bulkhead_cli.inspect.analyze import show_analysis

    return show_analysis(file, form, as_rows=rows, as_json=as_json)


def _is_file(name: str) -> bool:
    """True for a path: ids have neither dots nor slashes."""
    return "." in name or "/" in name


def _task_token(task: str) -> str:
    try:
        return subjects.check_token(task)
    except subjects.SubjectError as error:
        raise CommandError(Exit.USAGE, str(error), "`bulkhead tasks` lists the ids") from error

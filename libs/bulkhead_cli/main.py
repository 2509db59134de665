"""The `bulkhead` command: what each subcommand takes, and which module does it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from bulkhead import amounts
from bulkhead_cli import output, target
from bulkhead_cli.dead_letters.commands import letters_app
from bulkhead_cli.halts import commands as halts_commands
from bulkhead_cli.invocation import Commands, show_version
from bulkhead_cli.limits import commands as limits_commands
from bulkhead_cli.operate import commands
from bulkhead_cli.options import (
    ApiKey,
    Data,
    IdempotencyKey,
    Json,
    PlanFile,
    RequireComplete,
    TaskId,
    TaskTenant,
    Tenant,
    ToolNames,
    Url,
    amount,
    dollars,
    duration_s,
)
from bulkhead_cli.output import EXIT_CODES, Exit, Stop, run
from bulkhead_cli.tasks import documents
from bulkhead_contracts import bounds

app = typer.Typer(
    name="bulkhead",
    cls=Commands,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A mesh of AI agents: durable, budgeted, each service with its own identity. "
    'Start one with [bold]bulkhead up[/bold], then [bold]bulkhead submit "What is refunded, and when?" '
    "--docs ./notes --watch[/bold]; [bold]bulkhead timeline TASK[/bold] tells who did what.",
)


@app.callback()
def top(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=show_version, help="Print the version and end.")
    ] = False,
) -> None:
    """See `help` of the app."""


app.add_typer(letters_app, name="dead-letters")
app.add_typer(documents.documents_app, name="documents")
DEADLINE = f"{bounds.DEFAULT_TASK_DEADLINE_MS // 1000} s"
LIMITS = (
    f"Without limits of its own a task may cost {amounts.money(bounds.DEFAULT_TASK_COST_USD_MICROS)}, use "
    f"{bounds.DEFAULT_TASK_TOKENS:,} tokens and take {DEADLINE} by the clock, from submission to answer."
)


@app.command(epilog=EXIT_CODES)
def up(
    data: Data = target.DEFAULT_DATA,
    scale: Annotated[
        list[str] | None,
        typer.Option("--scale", metavar="SERVICE=N", help="Run N replicas of a service; may be repeated."),
    ] = None,
    durability: Annotated[
        str,
        typer.Option(
            "--durability",
            metavar="power|process",
            help="power: every message is on disk before it is acknowledged. process: faster; survives kills, "
            "not power cuts.",
        ),
    ] = "power",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port of the gateway; 0 takes a free one.")
    ] = 8080,
    nats: commands.UpNats = "",
    nats_monitor: commands.UpMonitor = "",
    redis: commands.UpRedis = "",
    replicas: commands.Replicas = 1,
    store_gib: commands.StoreGib = 0,
    shards: commands.Shards = None,
    tenants: commands.UpTenants = None,
) -> None:
    """Keep a mesh running in the foreground; Ctrl-C drains it, a second one ends it at once.

    Its state in DIR survives restarts and kills. A broker or Redis of yours is used with --nats and --redis; the broker
    must include what [bold]bulkhead render accounts[/bold] writes. Traces go to BULKHEAD_OTLP_ENDPOINT where it is set.
    """
    from bulkhead_cli.operate.up import keep_running

    given = {
        "nats_url": nats,
        "nats_monitor_url": nats_monitor,
        "redis_url": redis,
        "replicas": replicas,
        "store_gib": store_gib,
    }
    run(keep_running(data, scale or [], durability, port, given, shards or [], tenants))


@app.command(
    epilog=EXIT_CODES,
    help=(
        "Hand an objective to the mesh; it is stored durably before this returns.\n\n" + LIMITS + "\n\n"
        'Examples: bulkhead submit "What is refunded, and when?" --docs ./notes --watch · '
        "bulkhead submit - --deadline 10m --limit-usd 2 < question.txt"
    ),
)
def submit(
    objective: Annotated[
        str, typer.Argument(metavar="OBJECTIVE", help="What the mesh is to find out or do. `-` reads standard input.")
    ],
    docs: Annotated[
        list[Path] | None,
        typer.Option(
            "--docs", metavar="PATH", help="Add this document, or every file of this directory, first; may be repeated."
        ),
    ] = None,
    tenant: Tenant = "",
    limit_usd: Annotated[
        float | None,
        typer.Option(
            "--limit-usd",
            metavar="USD",
            parser=amount,
            show_default=amounts.money(bounds.DEFAULT_TASK_COST_USD_MICROS),
            help="Most that the task may cost.",
        ),
    ] = None,
    limit_tokens: Annotated[
        int | None,
        typer.Option(
            "--limit-tokens",
            metavar="N",
            min=1,
            show_default=f"{bounds.DEFAULT_TASK_TOKENS:,}",
            help="Most tokens that the task may use.",
        ),
    ] = None,
    deadline: Annotated[
        str,
        typer.Option(
            "--deadline",
            metavar="TIME",
            show_default=DEADLINE,
            help="The task must end within this time by the clock, whatever it is waiting for: 90s, 2m, 1h30m, 2d.",
        ),
    ] = "",
    watch: Annotated[bool, typer.Option("--watch", help="Follow the task and print its answer.")] = False,
    feature: Annotated[
        str, typer.Option("--feature", metavar="NAME", help="Count its spending under this feature of your product.")
    ] = "",
    workflow: Annotated[str, typer.Option("--workflow", metavar="NAME", help="And under this workflow.")] = "",
    require_complete: RequireComplete = False,
    plan: PlanFile = None,
    tool: ToolNames = None,
    idempotency_key: IdempotencyKey = "",
    no_check: Annotated[bool, typer.Option("--no-check", help="Do not have results checked: faster, cheaper.")] = False,
    data: Data = target.DEFAULT_DATA,
    url: Url = "",
    api_key: ApiKey = "",
    as_json: Json = False,
) -> None:
    from bulkhead_cli.tasks.commands import submit_task

    if require_complete and not watch:
        output.stop(Stop(Exit.USAGE, "--require-complete judges an answer, and nobody waits for it", "add --watch"))
    wanted = {
        "plan": plan,
        "tools": tuple(tool or ()),
        "idempotency_key": idempotency_key,
        "limit_usd": dollars(limit_usd),
        "limit_tokens": limit_tokens,
        "check": not no_check,
        "deadline_s": duration_s(deadline) if deadline else None,
        "feature": feature,
        "workflow": workflow,
    }
    found = _target(data, url, api_key, tenant, may_make_key=True)
    _exit(
        run(submit_task(found, objective, docs or [], wanted, watch=watch, as_json=as_json, complete=require_complete))
    )


@app.command(epilog=EXIT_CODES)
def watch(
    task: TaskId,
    require_complete: RequireComplete = False,
    data: Data = target.DEFAULT_DATA,
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """Follow a task from its beginning to its end and print its answer."""
    from bulkhead_cli.tasks.commands import watch_task

    _exit(run(watch_task(_target(data, url, api_key, tenant), task, as_json=as_json, complete=require_complete)))


@app.command(epilog=EXIT_CODES)
def tasks(
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many.")] = 20,
    data: Data = target.DEFAULT_DATA,
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """List the tenant's tasks, the newest first.

    Beside a status stands what is wrong with the answer: "degraded" (a part came by a fallback, or a call failed),
    "incomplete" (something was left out). [bold]bulkhead why TASK[/bold] says more.
    """
    from bulkhead_cli.tasks.commands import list_tasks

    run(list_tasks(_target(data, url, api_key, tenant), limit, as_json=as_json))


@app.command(epilog=EXIT_CODES)
def show(
    task: TaskId,
    data: Data = target.DEFAULT_DATA,
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """Everything about a task: its steps, its answer, what it cost."""
    from bulkhead_cli.tasks.commands import show_task

    run(show_task(_target(data, url, api_key, tenant), task, as_json=as_json))


@app.command(epilog=EXIT_CODES)
def cancel(
    task: TaskId,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept with the task.")] = "",
    data: Data = target.DEFAULT_DATA,
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """Ask for a task to end; `watch` tells when it has."""
    from bulkhead_cli.tasks.commands import cancel_task

    run(cancel_task(_target(data, url, api_key, tenant), task, reason, as_json=as_json))


@app.command(epilog=EXIT_CODES)
def timeline(task: TaskId, tenant: TaskTenant = "", data: Data = target.DEFAULT_DATA, as_json: Json = False) -> None:
    """What happened in a task, by step: who asked whom, when, how long it took, what it cost.

    Reads the journal under the operator's key and the trace files, both in DIR.
    """
    from bulkhead_cli.inspect.commands import show_timeline

    run(show_timeline(data, _token(task), tenant, as_json=as_json))


@app.command(epilog=EXIT_CODES)
def replay(
    context: typer.Context,
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK|FILE",
            help="The task's id, or a file of [bold]bulkhead export[/bold] (write ./NAME when it has "
            "neither a dot nor a slash).",
        ),
    ] = "",
    every: Annotated[bool, typer.Option("--all", help="Replay every task that the journal holds.")] = False,
    from_step: Annotated[
        str | None,
        typer.Option(
            "--from-step",
            metavar="N",
            help="Fork: run this step (its id, or its number in the plan) and what depends on "
            "it again, in a new task that takes over the recorded results of the others.",
        ),
    ] = None,
    edit: Annotated[
        str,
        typer.Option(
            "--edit",
            metavar="FILE",
            help="What is different in the fork, as a JSON object: objective, limits, and of the "
            "step title, instruction, acceptance, tools, inputs, role. `-` reads standard input.",
        ),
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what a fork would do, and do not submit it.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the fork and print its answer.")] = False,
    require_complete: RequireComplete = False,
    tenant: TaskTenant = "",
    data: Data = target.DEFAULT_DATA,
    url: Url = "",
    api_key: ApiKey = "",
    as_json: Json = False,
) -> None:
    """Fold every decider of a task again from its record and compare all that it said, byte for byte.

    No provider is called and nothing is sent. A FILE needs no mesh. Ends with 1 at a divergence and shows the first;
    --all goes on to the last task and sums up.

    With --from-step a task that has ended is forked instead: as a new task of yours, under a new grant, through the
    gateway (--url, --api-key). Results that are taken over are not made again and not paid again. Side effects that
    would be repeated are told; what honours no idempotency key is refused.

    Examples: bulkhead replay TASK · bulkhead replay task.jsonl.gz · bulkhead replay TASK --from-step 3 --edit new.json
    """
    from bulkhead_cli.replay import replay as replaying

    if every == bool(task):
        output.stop(Stop(Exit.USAGE, "name one task or file, or --all", "see `bulkhead replay --help`"))
    if from_step == "":  # Of a script's variable that holds nothing: what was meant is no comparison.
        output.stop(Stop(Exit.USAGE, "--from-step names no step", "say its id, or its number in the plan, from 1"))
    if from_step:
        _fork(
            task,
            from_step,
            edit,
            data,
            {
                "tenant": tenant,
                "url": url,
                "api_key": api_key,
                "watch": watch,
                "dry_run": dry_run,
                "as_json": as_json,
                "complete": require_complete,
            },
        )
    elif edit or dry_run or watch or require_complete:
        output.stop(
            Stop(
                Exit.USAGE,
                "--edit, --dry-run, --watch and --require-complete belong to --from-step",
                "name the step from which on the task is to run again",
            )
        )
    elif any(str(context.get_parameter_source(name)).endswith("COMMANDLINE") for name in ("url", "api_key")):
        output.stop(
            Stop(
                Exit.USAGE,
                "--url and --api-key belong to --from-step: the record is read from the broker, on the mesh's machine",
                "name its folder with --data; a file of `export` needs neither",
            )
        )
    elif tenant and (every or _is_file(task)):
        output.stop(Stop(Exit.USAGE, "--tenant belongs to a task's id", "leave it out"))
    elif every:
        _exit(run(replaying.show_all(data, as_json=as_json)))
    elif _is_file(task):
        _exit(run(replaying.show_file(Path(task), as_json=as_json)))
    else:
        _exit(run(replaying.show_task(data, _token(task), tenant, as_json=as_json)))


@app.command(epilog=EXIT_CODES)
def export(
    task: TaskId,
    to: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Where to; compressed when the name ends in .gz. Without it, standard output.",
        ),
    ] = None,
    tenant: TaskTenant = "",
    data: Data = target.DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """Write a task's whole history into one file that can be replayed anywhere: bulkhead replay FILE.

    In it: every message of the task with its headers, and every content that they name: the objective, passages,
    prompts' parts, answers, tool results, and the names of persons and tenants. Hand it on like those documents. Not in
    it: keys, and the signatures of grants: nobody gains authority by it. The same history gives the same bytes.
    """
    from bulkhead_cli.replay.export import show_export

    run(show_export(data, _token(task), to, tenant, as_json=as_json))


@app.command(epilog=EXIT_CODES)
def why(task: TaskId, tenant: TaskTenant = "", data: Data = target.DEFAULT_DATA, as_json: Json = False) -> None:
    """Why a task waits, was refused or was halted, or its answer is in doubt, in plain words, with what to do.

    Tells how it ended, what its answer lacks, what halted it, what the watcher found in it (loops, chatter, stalls)
    with the messages that show it, and what it waits for now. Reads the journal under the operator's key in DIR.
    """
    from bulkhead_cli.inspect.why import show_why

    _exit(run(show_why(data, _token(task), tenant, as_json=as_json)))


@app.command(epilog=EXIT_CODES)
def analyze(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A recorded run, compressed with gzip or not. `-` reads standard input."),
    ],
    form: Annotated[
        str,
        typer.Option(
            "--form",
            metavar="auto|bulkhead|rows|otel|openai",
            help="What the file is. bulkhead: of [bold]bulkhead "
            "export[/bold]. rows: one JSON object per act. otel: OpenTelemetry GenAI spans. openai: chats with "
            "messages.",
        ),
    ] = "auto",
    rows: Annotated[bool, typer.Option("--rows", help="Only convert: print the rows that would be judged.")] = False,
    as_json: Json = False,
) -> None:
    """Look for loops, deadlocks, chatter and stalls in a recorded run, of this mesh or of any other system.

    The same detectors watch a running mesh. A row of the plain form: {"task": "t1", "agent": "a", "action": "search",
    "arguments": {"q": "x"}, "result": "nothing", "waits_on": ["b"], "tokens": 120, "time_unix_ms": 1790000000000}; all
    of it but the agent may be left out. docs/analyze.md has the rest.

    Ends with 1 when something would have been stopped; warnings alone end with 0.

    Examples: bulkhead analyze task.jsonl.gz · bulkhead analyze spans.json --form otel --json · curl ... |
    bulkhead analyze -
    """
    from bulkhead_cli.inspect.analyze import show_analysis

    if form not in ("auto", "bulkhead", "rows", "otel", "openai"):
        output.stop(Stop(Exit.USAGE, f"there is no form {form[:40]!r}", "auto, bulkhead, rows, otel or openai"))
    try:
        code = show_analysis(file, form, as_rows=rows, as_json=as_json)  # type: ignore[arg-type]
    except Stop as error:
        output.stop(error)
    _exit(code)


@app.command(epilog=EXIT_CODES)
def doctor(
    data: Data = target.DEFAULT_DATA, redis: commands.DoctorRedis = "", otlp: commands.Otlp = "", as_json: Json = False
) -> None:
    """Look at everything that a mesh stands on; every finding says what to do. Ends with 1 when there is a problem.

    Programs and versions, disk, clock, keys, the broker with its durability, streams and their settings, every
    service's own rights, Redis and its eviction policy, where traces go, and who falls behind. Nothing is changed.
    """
    from bulkhead_cli.inspect.commands import show_doctor

    _exit(run(show_doctor(data, redis, otlp, as_json=as_json)))


app.command(epilog=EXIT_CODES)(commands.backup)
app.command(epilog=EXIT_CODES)(commands.restore)
app.add_typer(commands.render_app, name="render")
app.command(epilog=EXIT_CODES)(halts_commands.halt)
app.command(epilog=EXIT_CODES)(halts_commands.resume)
app.command(epilog=EXIT_CODES)(halts_commands.halts)
app.add_typer(halts_commands.breakers_app, name="breakers")
app.add_typer(limits_commands.limits_app, name="limits")
app.command(epilog=EXIT_CODES)(limits_commands.spend)
app.command(epilog=EXIT_CODES)(limits_commands.topup)


def _target(data: Path, url: str, api_key: str, tenant: str, *, may_make_key: bool = False) -> target.Target:
    try:
        return target.find(data, url, api_key, tenant, may_make_key=may_make_key)
    except Stop as error:
        output.stop(error)


def _fork(task: str, from_step: str, edit: str, data: Path, more: dict[str, Any]) -> None:
    from bulkhead_cli.replay import fork

    if not task or _is_file(task):
        output.stop(Stop(Exit.USAGE, "--from-step needs a task of a running mesh", "`bulkhead tasks` lists the ids"))

    async def work() -> Exit:
        found = fork.read_edit(edit) if edit else fork.Edit()
        return await fork.fork_task(data, _token(task), from_step, found, **more)

    _exit(run(work()))


def _is_file(name: str) -> bool:
    """Ids have neither dots nor slashes."""
    return "." in name or "/" in name


def _token(task: str) -> str:
    from bulkhead_contracts import subjects

    try:
        return subjects.token(task)
    except subjects.SubjectError as error:
        output.stop(Stop(Exit.USAGE, str(error), "`bulkhead tasks` lists the ids"))


def _exit(code: Exit) -> None:
    if code is not Exit.OK:
        raise typer.Exit(int(code))


if __name__ == "__main__":
    app()

"""`bulkhead timeline`, `why`, `cite`, `report` and `doctor`: the arguments of each. `main` adds them."""

import re
from typing import Annotated, Literal

import typer

from bulkhead_cli.operate import commands
from bulkhead_cli.options import (
    BrokerOptions,
    BrokerOrGatewayOptions,
    GatewayOptions,
    Since,
    TaskId,
    TaskTenant,
    since_s,
    task_id,
)
from bulkhead_cli.output import CommandError, Exit, Work

ReportTenant = Annotated[str, typer.Option("--tenant", metavar="T", help="Only the tasks of this tenant.")]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="FEATURE=SECONDS",
        help="Target of the p95 of a feature's tasks; may be given several times.",
    ),
]

CitedTask = Annotated[str, typer.Option("--task", metavar="TASK", help="Id of the task.", callback=task_id)]
CitedMarker = Annotated[
    str,
    typer.Argument(
        metavar="[MARKER]",
        help="The 12 digits in `\\[#...]`, or the number of the source as `bulkhead show` prints it.",
        show_default="all citations of the answer",
    ),
]


Whole = Annotated[bool, typer.Option("--all", help="Show every call, message and sentence, uncut.")]

Content = Annotated[
    bool, typer.Option("--content", help="Show the texts of calls, too: arguments, results, the model's words.")
]


def timeline(task: TaskId, at: BrokerOrGatewayOptions, tenant: TaskTenant = "", content: Content = False) -> Work:
    """Show the messages of a task by step, with arguments, results, waits and cost.

    Reads the journal with the operator's key, and the trace files, both in DIR. With --url and --api-key a gateway is
    asked; it shows texts to operators, and to who submitted the task.
    """
    from bulkhead_cli.inspect import broker, gateway

    if target := at.remote_target():
        return gateway.show_timeline(target, task, as_json=at.as_json)
    return broker.show_timeline(at.data, task, tenant, content=content, as_json=at.as_json)


def why(task: TaskId, at: BrokerOrGatewayOptions, tenant: TaskTenant = "", whole: Whole = False) -> Work:
    """Tell the story of a task that has ended, or explain why one waits, and how to go on.

    The story: the plan and its origin, what each step searched, called, wrote and cost, the model's stated reason for
    a call, what was refused, retried or put off, and the source of each sentence of the answer; of a failure what led
    to it, with the messages that show it. Of a task that goes on: halts, loops, stalls, current waits. Reads the
    journal with the operator's key in DIR. With --url and --api-key a gateway is asked; it shows texts to operators,
    and to who submitted the task.
    """
    from bulkhead_cli.inspect import broker, gateway

    if target := at.remote_target():
        return gateway.show_why(target, task, whole=whole, as_json=at.as_json)
    return broker.show_why(at.data, task, tenant, whole=whole, as_json=at.as_json)


def report(
    at: BrokerOptions,
    since: Since = "24h",
    tenant: ReportTenant = "",
    target: Targets = None,
    by: Annotated[
        Literal["model", "prompt"],
        typer.Option("--by", help="model: models and features; prompt: versions of prompts, and releases."),
    ] = "model",
) -> Work:
    """Compare quality, cost and latency of models and features, or of prompts by version.

    By model: share of accepted answers, the judge's mean score, and the cost of an accepted answer; a cheap model whose
    accepted answers cost more than a dearer one's is named. By feature: duration of tasks (p50, p95), cost, quality;
    of conversations the first turn beside the last, and what summaries cost and saved.
    Failed attempts (retries, fallbacks) are shown by `bulkhead spend --by model`. Reads the inboxes with the operator's
    key in DIR. The exit code is 1 when a target is missed.

    By prompt: calls, tokens and cost, also for an accepted answer, by version and by release; with more than one tenant
    their versions of the same number are one row. The exit code is 1 when a version uses half more tokens for an
    accepted answer than the one before, with 30 or more accepted answers of each.

    Examples: bulkhead report --since 7d · bulkhead report --target search=30 --target invoices=120 ·
    bulkhead report --by prompt --tenant demo
    """
    from bulkhead_cli.inspect.broker import show_prompt_usage, show_report

    if by == "prompt":
        return show_prompt_usage(at.data, since_s(since), tenant, as_json=at.as_json)
    return show_report(at.data, since_s(since), tenant, targets_ms(target or []), as_json=at.as_json)


def targets_ms(given: list[str]) -> dict[str, int]:
    """Milliseconds by feature. Raises CommandError for what is no target."""
    targets = {}
    for target in given:
        feature, _, text = target.rpartition("=")
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", feature) or not re.fullmatch(r"\d{1,6}(\.\d{1,3})?", text):
            raise CommandError(
                Exit.USAGE, f"--target {target[:80]!r} is no target", "write FEATURE=SECONDS, as in search=30"
            )
        targets[feature] = round(float(text) * 1000)
    return targets


def cite(at: GatewayOptions, task: CitedTask, marker: CitedMarker = "") -> Work:
    """Show what stands behind the citations of an answer, also after its documents changed.

    Of a passage: the document, its version, the characters and their text; of a tool's result the call, its arguments
    and its step. Without MARKER every citation of the answer is shown.
    """
    from bulkhead_cli.inspect.gateway import show_citations

    return show_citations(at.gateway_target(), task, marker, as_json=at.as_json)


def doctor(
    at: BrokerOptions,
    redis: commands.DoctorRedis = "",
    otlp: commands.Otlp = "",
    cluster: commands.OnCluster = False,
    kube_context: commands.Context = "",
    namespace: commands.Namespace = "bulkhead",
) -> Work:
    """Check everything that a mesh depends on.

    Checks programs and their versions, disk, clock, keys, the providers of models that this shell names, the broker
    and its durability, streams and their settings, the rights of every service, Redis and its eviction policy, the
    trace endpoint, and services that fall behind.
    Every finding comes with a remedy. Nothing is changed. The exit code is 1 when there is a problem.

    With --cluster: pods, replicas, images, Secrets that pods wait for, certificates and autoscalers of a namespace.
    No Secret is read.
    """
    from bulkhead_cli.inspect.broker import show_cluster, show_doctor

    if cluster:
        return show_cluster(namespace, kube_context, as_json=at.as_json)
    if kube_context:
        raise CommandError(Exit.USAGE, "--context belongs to --cluster", "add --cluster")
    return show_doctor(at.data, redis, otlp, as_json=at.as_json)

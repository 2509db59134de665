"""`bulkhead incident export`: its arguments. `main` adds it to `bulkhead`."""

from pathlib import Path
from typing import Annotated

import typer

from bulkhead_cli.invocation import CommandGroup
from bulkhead_cli.options import BrokerOrGatewayOptions, Since, since_s, task_id
from bulkhead_cli.output import Work

incident_app = CommandGroup(no_args_is_help=True)
OfTask = Annotated[
    str,
    typer.Option(
        "--task",
        metavar="TASK",
        help="Only the story of this task, in place of those that ended badly or go on.",
        callback=lambda text: task_id(text) if text else "",
    ),
]
To = Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="File to write, of mode 0600.")]


@incident_app.callback()
def incident() -> None:
    """Gather what an on-call needs."""


@incident_app.command("export")
def export(at: BrokerOrGatewayOptions, since: Since = "1h", task: OfTask = "", to: To = Path("incident.json")) -> Work:
    """Write one redacted file about the mesh, to be handed to whoever helps.

    It holds versions, doctor's findings, health and metrics of every process, halts, breakers, limits, alerts, waiting
    approvals, dead letters (without their bodies), and the course of tasks that ended badly in the period or go on:
    plan, steps, calls, waits and failures by name, code and time. It holds no content (objectives, documents, prompts,
    arguments, results, error texts), no person and no key. What cannot be had is said in the manifest; the rest is
    written all the same.

    In DIR it reads the broker with the operator's key, for all tenants. With --url and --api-key a gateway is asked:
    halts, breakers, limits, alerts, approvals and tasks of the key's tenant.

    Example: bulkhead incident export --since 1h -o incident.json
    """
    from bulkhead_cli.incident.export import write_incident_file

    return write_incident_file(at.data, at.remote_target(), since_s(since), task, to, as_json=at.as_json)

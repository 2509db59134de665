"""`bulkhead timeline`, `why` and `doctor`: the arguments of each. `main` adds them to `bulkhead`."""

from bulkhead_cli import target
from bulkhead_cli.operate import commands
from bulkhead_cli.options import Data, Json, TaskId, TaskTenant
from bulkhead_cli.output import exit_with, run


def timeline(task: TaskId, tenant: TaskTenant = "", data: Data = target.DEFAULT_DATA, as_json: Json = False) -> None:
    """Show the messages of a task by step: sender, receiver, time, duration and cost.

    Reads the journal with the operator's key, and the trace files. Both are in DIR.
    """
    from bulkhead_cli.inspect.read import show_timeline

    run(show_timeline(data, task, tenant, as_json=as_json))


def why(task: TaskId, tenant: TaskTenant = "", data: Data = target.DEFAULT_DATA, as_json: Json = False) -> None:
    """Explain why a task waits, failed, was refused or was halted, and how to go on.

    The explanation covers how the task ended, gaps and doubts in its answer, halts, loops, chatter and stalls that the
    watcher detected (with the messages that show them), and current waits. Reads the journal with the operator's key
    in DIR.
    """
    from bulkhead_cli.inspect.why import show_why

    exit_with(run(show_why(data, task, tenant, as_json=as_json)))


def doctor(
    data: Data = target.DEFAULT_DATA, redis: commands.DoctorRedis = "", otlp: commands.Otlp = "", as_json: Json = False
) -> None:
    """Check everything that a mesh depends on.

    Checks programs and their versions, disk, clock, keys, the broker and its durability, streams and their settings,
    the rights of every service, Redis and its eviction policy, the trace endpoint, and services that fall behind.
    Every finding comes with a remedy. Nothing is changed. The exit code is 1 when there is a problem.
    """
    from bulkhead_cli.inspect.read import show_doctor

    exit_with(run(show_doctor(data, redis, otlp, as_json=as_json)))

"""`bulkhead timeline`, `why` and `doctor`: the arguments of each. `main` adds them to `bulkhead`."""

from bulkhead_cli.operate import commands
from bulkhead_cli.options import Broker, TaskId, TaskTenant
from bulkhead_cli.output import Work


def timeline(task: TaskId, at: Broker, tenant: TaskTenant = "") -> Work:
    """Show the messages of a task by step: sender, receiver, time, duration and cost.

    Reads the journal with the operator's key, and the trace files. Both are in DIR.
    """
    from bulkhead_cli.inspect.read import show_timeline

    return show_timeline(at.data, task, tenant, as_json=at.as_json)


def why(task: TaskId, at: Broker, tenant: TaskTenant = "") -> Work:
    """Explain why a task waits, failed, was refused or was halted, and how to go on.

    The explanation covers how the task ended, gaps and doubts in its answer, halts, loops, chatter and stalls that the
    watcher detected (with the messages that show them), and current waits. Reads the journal with the operator's key
    in DIR.
    """
    from bulkhead_cli.inspect.why import show_why

    return show_why(at.data, task, tenant, as_json=at.as_json)


def doctor(at: Broker, redis: commands.DoctorRedis = "", otlp: commands.Otlp = "") -> Work:
    """Check everything that a mesh depends on.

    Checks programs and their versions, disk, clock, keys, the broker and its durability, streams and their settings,
    the rights of every service, Redis and its eviction policy, the trace endpoint, and services that fall behind.
    Every finding comes with a remedy. Nothing is changed. The exit code is 1 when there is a problem.
    """
    from bulkhead_cli.inspect.read import show_doctor

    return show_doctor(at.data, redis, otlp, as_json=at.as_json)

"""Start one service as a process: keys, bus, telemetry, health, signals.

Exit codes: 0 drained on a signal, 1 the connection was closed for good or the service failed, 2 bad settings.
"""

import asyncio
import gc
import importlib
import re
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError

from bulkhead.bus.port import Bus, BusError
from bulkhead.runtime import crash_points
from bulkhead.runtime.background import cancel_tasks
from bulkhead.runtime.broker_clock import BrokerClock
from bulkhead.runtime.context import Context, ServiceIdentity, make_context
from bulkhead.runtime.process.health_endpoints import HealthServer
from bulkhead.runtime.process.service import Service
from bulkhead.runtime.settings import ServiceSettings
from bulkhead.telemetry import log as logs
from bulkhead.telemetry import metrics, trace
from bulkhead.telemetry.latency import LATENCY
from bulkhead.telemetry.log import Log

log = Log("main")
BAD_SETTINGS = 2
"""Exit code: started again it would end in the same way. bulkhead_infra.processes.supervised knows it."""

LATE_IMPORTS = (
    "anyio.lowlevel",
    "anyio.streams.tls",
    "anyio._core._sockets",
    "anyio._core._streams",
    "anyio._core._testing",
)
"""Parts that a library imports at its first use: in the event loop, in the midst of calls."""

BuildComponent = Callable[[Context, Any], Any]


def main(service: str, build: BuildComponent, settings_type: type[ServiceSettings]) -> None:
    """Run until a signal; never returns."""
    settings = read_settings(service, settings_type)
    logs.setup(service, settings.instance, as_json=settings.log_json, level=settings.log_level)
    crash_points.arm_crash(service, settings.crash_at)
    trace_file = settings.trace_file or (settings.data_dir / "traces" / f"{service}-{settings.instance}.jsonl")
    trace.setup(
        service,
        settings.instance,
        settings.otlp_endpoint,
        trace_file if settings.trace else None,
        prompts=settings.trace_prompts,
    )
    metrics.setup(service, settings.instance, settings.otlp_endpoint if settings.metrics else "")
    run: Callable[[Coroutine[Any, Any, int]], int] = asyncio.run
    with suppress(ImportError):
        import uvloop

        run = uvloop.run
    try:
        code = run(serve(service, build, settings))
    except ValueError as error:
        # Of files that the settings name (policies, prices, keys): the same at the next start.
        log.error("start_failed", reason="; ".join(setting_problems(error, type(settings))))
        code = BAD_SETTINGS
    except (BusError, OSError) as error:
        log.error("start_failed", reason=str(error))
        code = 1
    sys.exit(code)


def read_settings(service: str, settings_type: type[ServiceSettings]) -> ServiceSettings:
    """From the environment; ends the process with BAD_SETTINGS, and one line per problem, when they do not fit."""
    try:
        return settings_type()
    except ValueError as error:
        for line in setting_problems(error, settings_type):
            print(f"{service}: {line}", file=sys.stderr)  # noqa: T201
    sys.exit(BAD_SETTINGS)


def _bad_json_setting(error: SettingsError, settings_type: type[ServiceSettings]) -> str:
    """A setting in JSON form that is no JSON. The library names the field in its message alone."""
    field_match = re.search(r'field "(\w+)"', str(error))
    field = settings_type.model_fields.get(field_match[1]) if field_match else None
    if field_match is None or field is None:
        return f"settings: {error}; look at the variables BULKHEAD_*"
    example = '{"name": "value"}' if getattr(field.annotation, "__origin__", None) is dict else '["first", "second"]'
    name = f"BULKHEAD_{field_match[1].upper()}"
    cause_text = f" ({error.__cause__})" if error.__cause__ else ""
    return f"setting {name}: its value is not JSON{cause_text}; write it as {name}='{example}', or unset it"


def setting_problems(error: ValueError, settings_type: type[ServiceSettings]) -> list[str]:
    """One line per problem, under the name of the environment variable; several settings together have none."""
    if isinstance(error, SettingsError):
        return [_bad_json_setting(error, settings_type)]
    if not isinstance(error, ValidationError):
        return [str(error)]
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        names = [str(part) for part in problem["loc"]]
        message = problem["msg"].removeprefix("Value error, ")
        if names and not names[0].isupper():  # An alias is the variable's whole name.
            names[0] = f"BULKHEAD_{names[0].upper()}"
        lines.append(f"setting {'.'.join(names)}: {message}" if names else f"settings: {message}")
    return lines


def _freeze_heap() -> None:
    """Freeze the heap: the collector need not look at it again, and seldom at what comes. Messages and folds
    hold no cycles; looking through all of them every few hundred allocations cost a tenth of a step's CPU.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*LATENCY.gc_thresholds)


async def serve(service: str, build: BuildComponent, settings: ServiceSettings) -> int:
    """Connect, assemble, run; returns the exit code."""
    from bulkhead.bus.jetstream.bus import JetStreamBus

    for module in LATE_IMPORTS:
        with suppress(ImportError):
            importlib.import_module(module)
    for module in settings.needed_modules():
        importlib.import_module(module)
    identity = ServiceIdentity.load(settings.identity_dir, service, nkey=settings.nats_token_file is None)
    bus = await JetStreamBus.connect(
        settings.nats_url,
        service=service,
        nkey_seed=identity.nkey_seed or None,
        token_file=settings.nats_token_file,
        name=f"{service}-{settings.instance}",
        ca_file=settings.nats_ca_file,
        ping_s=settings.nats_ping_s,
    )
    clock = BrokerClock(bus.time_unix_ms)
    await clock.measure()
    context = make_context(service, settings.instance, bus, identity, clock.now_ms)
    running = Service(
        context,
        build(context, settings),
        shards=settings.shards,
        slots=settings.slots,
        drain_timeout_s=settings.drain_timeout_s,
    )

    for name, read_gauge in running.gauges().items():
        metrics.register_gauge(name, read_gauge)
    health = HealthServer(partial(_health_status, running, bus, clock), running.pools)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.drain)
    labels = {"service": service, "replica": settings.instance}
    await health.start(settings.health_port, settings.health_file, settings.health_host, labels)
    health.started = True
    _freeze_heap()
    log.info("started")
    if problem := running.describe_problem():
        log.error("not_ready", reason=problem)
    following = context.background.start("clock", clock.follow_broker())
    work = asyncio.create_task(running.run())
    closed = asyncio.create_task(bus.wait_closed())
    await asyncio.wait({work, closed}, return_when=asyncio.FIRST_COMPLETED)
    await cancel_tasks(following)
    if not work.done():
        log.error("connection_closed", reason=closed.result())
        await cancel_tasks(work)
        return 1
    closed.cancel()
    try:
        work.result()
    finally:
        await health.stop()
        await bus.close()
    log.info("drained")
    return 0


async def _health_status(running: Service, bus: Bus, clock: BrokerClock) -> dict[str, object]:
    """The answer to a health probe."""
    on_bus, problem = await bus.is_ready(), running.describe_problem()
    return {
        "ready": running.is_ready() and on_bus and not problem,
        "service": running.context.service,
        "instance": running.context.instance,
        "why": problem or clock.describe_problem() if on_bus else "the broker does not answer",
        "degraded": running.describe_degradation(),
    } | running.details()

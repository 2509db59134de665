"""Programs of one's own on the bus, with FastStream: `Events` hears what happens to tasks, `Requests` asks for tasks,
`BusSteps` carries out delegated steps.

    events = Events("nats://127.0.0.1:4222", "identity/sub_demo.nkey", tenant="demo")

    @events.on(TaskEndedEvent)
    async def ended(event: TaskEndedEvent) -> None: ...

    app = events.app()

Needs the extra `faststream`.
"""

try:
    import faststream.nats  # noqa: F401 - asked here, so that its absence is said once for all modules.
except ModuleNotFoundError as missing:
    raise ImportError(f"{missing.name} is not installed: pip install 'bulkhead[faststream]'") from None

from bulkhead.faststream.events import Events, told
from bulkhead.faststream.requests import NotStored, Requests
from bulkhead.faststream.steps import BusSteps

__all__ = ["BusSteps", "Events", "NotStored", "Requests", "told"]

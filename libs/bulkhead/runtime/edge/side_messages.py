"""What a doer takes beside its calls: messages that ask for no reply, so that nobody waits for them.

In: a message of the doer's inbox that is no call. Out: what the doer's own handler makes of it. No record is kept and
no grant asked for: the sender is the broker's word, and the catalog says who may send it.
"""

from collections.abc import Awaitable, Callable, Mapping

from bulkhead.runtime.consume.loop import HandBack, Handed
from bulkhead.runtime.edge.protocol import Received, Retry
from bulkhead_contracts.types import Body

Asides = Mapping[type[Body], Callable[[Received], Awaitable[None]]]
"""By type. A handler may raise Retry: the message comes back, and holds up nothing but itself."""


async def take(asides: Asides, handed: Handed) -> None:
    """Pass it on; what nobody takes is left. Raises HandBack."""
    message, address = handed.message, handed.message.address
    handler = asides.get(type(message.body))
    if handler is None:
        return
    try:
        await handler(
            Received(
                message.envelope,
                message.body,
                address.tenant,
                address.task,
                address.sender,
                message.sequence,
                message.time_unix_ms,
                handed.attempts,
            )
        )
    except Retry as retry:
        raise HandBack(retry.delay_s, retry.reason) from retry

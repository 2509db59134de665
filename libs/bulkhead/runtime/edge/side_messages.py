"""What a doer takes beside its calls: messages that ask for no reply, so that nobody waits for them.

In: a message of the doer's inbox that is no call. Out: what the doer's own handler makes of it. No record is kept and
no grant asked for: the sender is the broker's word, and the catalog says who may send it.
"""

from collections.abc import Awaitable, Callable, Mapping

from bulkhead.runtime.consume.inbound import Received
from bulkhead_contracts.types import Body

Asides = Mapping[type[Body], Callable[[Received], Awaitable[None]]]
"""By type. A handler may raise HandBack: the message comes back, and holds up nothing but itself."""


async def take(asides: Asides, message: Received) -> None:
    """Pass it on; what nobody takes is left. Raises HandBack."""
    handler = asides.get(type(message.body))
    if handler is not None:
        await handler(message)

"""Side messages of a doer: those that ask for no reply.

In: a message of the doer's inbox that is no call. Out: the doer's own handler is called. It needs neither a record nor
a grant: the broker vouches for the sender, and the catalog says who may send it.
"""

from collections.abc import Awaitable, Callable, Mapping

from bulkhead.runtime.consume.inbound import Received
from bulkhead_contracts.types import Body

SideHandlers = Mapping[type[Body], Callable[[Received], Awaitable[None]]]
"""By type. A handler may raise HandBack: the message comes back, and holds up nothing but itself."""


async def take(side_handlers: SideHandlers, message: Received) -> None:
    """Call the message's handler, if there is one. Raises HandBack."""
    handler = side_handlers.get(type(message.body))
    if handler is not None:
        await handler(message)

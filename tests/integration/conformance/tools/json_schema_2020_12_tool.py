"""Is listed for its schema."""

from bulkhead.tools.packs import Arguments, Call, Done


async def run(arguments: Arguments, call: Call) -> Done:
    """A text."""
    return Done("taken")

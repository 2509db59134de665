"""A text."""

from bulkhead.tools.packs import Arguments, Call, Done


async def run(arguments: Arguments, call: Call) -> Done:
    """The text that the scenario names."""
    return Done("This is a simple text response for testing.")

"""A failure."""

from bulkhead.tools.packs import Arguments, Call, Failed


async def run(arguments: Arguments, call: Call) -> Failed:
    """The failure that the scenario names."""
    return Failed("failed", "This tool intentionally returns an error for testing", "", transient=False, effect="none")

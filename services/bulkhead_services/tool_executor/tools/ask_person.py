"""`ask_person(question)`: the word of the person who let the call be made. Policy asks one about each of its calls."""

from bulkhead.tools.api import Arguments, Call, Done, Failed


async def run(arguments: Arguments, call: Call) -> Done | Failed:
    """The person's word: who approved, when, and with which comment."""
    if not call.approval:
        return Failed("not_asked", "nobody was asked", "call it where approvals are asked for")
    return Done(call.approval)

"""Messages of outside agents as tasks of the mesh, and as turns of a session where they belong to a conversation.

In: a text, and the client of the gateway under its caller's own credential. Out: the task, durably stored. The first
message of a conversation is a task as any other, which the mesh plans; each later one is a turn that is shown what was
said before. The same key is the same task and the same turn, whatever went down in between.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from bulkhead.client import Mesh, MeshError, Refused
from bulkhead.client.task import Task

NOT_FOUND = 404


async def begin_turn(
    mesh: Mesh,
    conversation: str,
    text: str,
    key: str,
    submit: Callable[[], Awaitable[Task]],
    *,
    limits: Mapping[str, Any],
    options: Mapping[str, Any],
    is_planned: bool = False,
) -> Task:
    """The task of a message. submit: stores it as a task of its own, under this key and conversation. limits: of this
    message. options: of the session, where this message opens it. is_planned: it is a task of its own also as a later
    message, which is shown nothing and remembered. Raises MeshError, of these Refused 404 for another's conversation.
    """
    if not conversation:
        return await submit()
    session = mesh.session(conversation=conversation, written_by="model", **options)
    await session.open()
    if not is_planned and (await session.show(before=1)).turn_count:
        # A model speaks, under whosever key.
        return await session.say(text, written_by="model", idempotency_key=key, **limits)
    task = await submit()
    try:
        return await session.say(text, task=task.id, idempotency_key=key)
    except Refused as error:
        if error.status == NOT_FOUND or error.code == "session_full":
            # No repeat makes it a turn: nothing runs on for a client that hears a refusal.
            with suppress(MeshError):
                await task.cancel("its conversation takes no turn any more")
        raise

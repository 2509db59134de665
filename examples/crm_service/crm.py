"""A CRM that has its tickets answered: a ticket becomes a task, the task's end becomes a reply to the ticket, once.

It keeps its tickets in SQLite. Killed at any moment and started again it goes on: a ticket asks under a key of its own,
so asking again is the same task; an event comes until its reply is stored, and a ticket has one place for a reply.
"""

import asyncio
import logging
import os
import sqlite3
from contextlib import closing, suppress

from pydantic import ValidationError

from bulkhead.client import Mesh
from bulkhead.faststream import Events, NotStored, Requests
from bulkhead_contracts.event import TaskEndedEvent
from bulkhead_contracts.task import TaskRequested

NATS, KEYS, TENANT = os.environ["NATS_URL"], os.environ["KEYS"], os.environ.get("TENANT", "demo")
TABLE = """
CREATE TABLE IF NOT EXISTS tickets (
    id INTEGER PRIMARY KEY, text TEXT NOT NULL, task TEXT UNIQUE, asked INTEGER NOT NULL DEFAULT 0,
    status TEXT, reply TEXT
)"""
LOOK_S = 0.2

# A gateway may be away for long: an event is tried each minute, for about a day.
events = Events(NATS, f"{KEYS}/sub_demo.nkey", tenant=TENANT, attempts=1_500)
requests = Requests(NATS, f"{KEYS}/pub_demo.nkey", tenant=TENANT)
mesh = Mesh(os.environ["BULKHEAD_URL"], os.environ["BULKHEAD_API_KEY"])
db = sqlite3.connect(os.environ["TICKETS"], isolation_level=None)
db.execute("PRAGMA journal_mode = WAL")
db.execute(TABLE)
app = events.app(requests.broker)


@events.on(TaskEndedEvent)
async def ended(event: TaskEndedEvent) -> None:
    """Store the reply. An error brings the event back."""
    waiting = db.execute("SELECT id FROM tickets WHERE task = ? AND status IS NULL", (event.task,)).fetchone()
    if waiting is None:
        return  # Somebody else's task, or a ticket that has its reply.
    shown = await mesh.get(event.url)
    if event.status == "succeeded" and shown["answer"] is None:
        raise LookupError(f"the answer of {event.task} cannot be read yet")
    reply = shown["answer"] or f"no answer: {event.code}"
    # One statement: of two processes with the same event one finds the place taken.
    db.execute(
        "UPDATE tickets SET status = ?, reply = ? WHERE task = ? AND status IS NULL", (event.status, reply, event.task)
    )


async def ask() -> None:
    """Ask for each ticket that has not been asked for. Its task is noted first, so that no end can come before it."""
    while True:
        for ticket, text in db.execute("SELECT id, text FROM tickets WHERE NOT asked").fetchall():
            key = f"ticket-{ticket}"
            db.execute("UPDATE tickets SET task = ? WHERE id = ?", (requests.task_id(key), ticket))
            try:
                await requests.submit(TaskRequested(objective=text), key)
                db.execute("UPDATE tickets SET asked = 1 WHERE id = ?", (ticket,))
            except ValidationError as error:  # Such a ticket nobody can ask for.
                refused = "UPDATE tickets SET asked = 1, status = 'rejected', reply = ? WHERE id = ?"
                db.execute(refused, (str(error), ticket))
            except NotStored as error:
                logging.warning("ticket %s: %s", ticket, error)
        await asyncio.sleep(LOOK_S)


async def main() -> None:
    async with requests.broker, mesh:
        await requests.broker.start()
        asking = asyncio.create_task(ask())
        asking.add_done_callback(lambda done: done.cancelled() or app.exit())
        await app.run()
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking  # Its error is the program's.


if __name__ == "__main__":
    with closing(db):
        asyncio.run(main())

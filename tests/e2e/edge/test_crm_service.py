"""The CRM of examples/, a process of its own on a whole mesh: each ticket is answered once, wherever it is killed."""

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from bulkhead_contracts import subjects
from bulkhead_infra.demo.corpus import generate_demo
from tests.e2e.fixtures.stranger import Stranger
from tests.e2e.fixtures.world import World, until
from tests.paths import ROOT

pytestmark = pytest.mark.asyncio(loop_scope="session")

DEMO = generate_demo(21)
NUMBERS = itertools.count(1)
RESET = f"JSMESH.API.CONSUMER.RESET.{subjects.EVENTS_STREAM}.sub_demo"


class Proxy:
    """The gateway's address for the CRM: while `stuck`, requests are taken and not answered."""

    def __init__(self, url: str) -> None:
        self._to = urlsplit(url)
        self.stuck, self.taken = asyncio.Event(), asyncio.Event()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        asked = await reader.readuntil(b"\r\n\r\n")
        self.taken.set()
        if self.stuck.is_set():
            await reader.read()
        else:
            there, out = await asyncio.open_connection(self._to.hostname, self._to.port)
            out.write(asked.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
            writer.write(await there.read())
            out.close()
        writer.close()


class Crm:
    """Its tickets, and its process."""

    def __init__(self, world: World, folder: Path, url: str, python: str | Path = sys.executable) -> None:
        self.command = (python, shutil.copy(ROOT / "examples" / "crm_service" / "crm.py", folder))
        self.path = folder / "tickets.db"
        self.environ = os.environ | {
            "NATS_URL": world.mesh.nats_url,
            "KEYS": str(world.mesh.directory / "identity"),
            "BULKHEAD_URL": url,
            "BULKHEAD_API_KEY": world.mesh.add_api_key("demo", "crm", "submitter"),
            "TICKETS": str(self.path),
        }
        self.log = folder / "crm.log"
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Also once more, beside what it has stored."""
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.command, env=self.environ, cwd=self.path.parent, stdout=log, stderr=log
            )
        await until(self._has_tables, "the CRM has its table")
        # Whoever writes a reply leaves a trace: a second one would be seen.
        self.sql("CREATE TABLE IF NOT EXISTS written (ticket INTEGER)")
        self.sql(
            "CREATE TRIGGER IF NOT EXISTS written_once AFTER UPDATE OF reply ON tickets "
            "BEGIN INSERT INTO written VALUES (NEW.id); END"
        )

    async def _has_tables(self) -> bool:
        with contextlib.suppress(sqlite3.OperationalError):
            return bool(self.path.exists() and self.sql("SELECT 1 FROM sqlite_master WHERE name = 'tickets'"))
        return False

    async def kill(self, number: int = signal.SIGKILL) -> int:
        """End it at once."""
        assert self.process is not None, "it runs"
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await self.process.wait()

    def sql(self, text: str, *values: object) -> list[tuple]:
        """One statement on its tickets."""
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None, timeout=10)) as db:
            return db.execute(text, values).fetchall()

    async def ticket(self) -> int:
        """A new one, of a number that no other CRM of these tests has: it is the key of its task."""
        number = next(NUMBERS)
        self.sql("INSERT INTO tickets (id, text) VALUES (?, ?)", number, DEMO.objective)
        return number

    async def replied(self, ticket: int) -> str:
        """The reply, once it is there."""

        async def found() -> str | None:
            return self.sql("SELECT reply FROM tickets WHERE id = ?", ticket)[0][0]

        return str(await until(found, f"ticket {ticket} is answered; see {self.log}", timeout_s=90))

    async def asked(self, ticket: int) -> str:
        """Its task, once the broker has the request."""

        async def found() -> str | None:
            rows = self.sql("SELECT task FROM tickets WHERE id = ? AND asked", ticket)
            return rows[0][0] if rows else None

        return str(await until(found, f"ticket {ticket} is asked for; see {self.log}"))


@pytest_asyncio.fixture(loop_scope="session")
async def proxy(world: World) -> AsyncIterator[Proxy]:
    found = Proxy(world.mesh.url)
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield found
    server.close()


@pytest_asyncio.fixture(loop_scope="session")
async def crm(world: World, proxy: Proxy, tmp_path: Path) -> AsyncIterator[Crm]:
    await world.ingest("demo", DEMO)
    found = Crm(world, tmp_path, proxy.url)
    await found.start()
    yield found
    await found.kill()


async def test_a_ticket_is_answered_once_also_when_everything_is_told_again(world: World, crm: Crm) -> None:
    ticket = await crm.ticket()
    reply = await crm.replied(ticket)
    assert "no answer" not in reply
    async with world.bus("sub_demo") as bus:
        answer = await bus.request(RESET, json.dumps({"seq": 1}).encode())
        assert b'"error"' not in answer.body
    # What is told after all that was told again: when it is answered, the rest has been handled.
    await crm.replied(await crm.ticket())
    assert crm.sql("SELECT count(*) FROM written WHERE ticket = ?", ticket) == [(1,)]
    assert await crm.kill(signal.SIGTERM) == 0, crm.log.read_text()[-2_000:]


async def test_it_runs_from_another_repository_beside_a_wheel_of_ours(
    world: World, stranger: Stranger, tmp_path: Path
) -> None:
    await world.ingest("demo", DEMO)
    crm = Crm(world, tmp_path, world.mesh.url, stranger.python)
    await crm.start()
    try:
        await crm.replied(await crm.ticket())
    finally:
        await crm.kill()


async def test_killed_before_the_end_it_hears_of_it_when_it_is_back(world: World, crm: Crm) -> None:
    ticket = await crm.ticket()
    task = await crm.asked(ticket)
    await crm.kill()
    await world.finish(world.client().task(task))
    await crm.start()
    await crm.replied(ticket)
    assert crm.sql("SELECT ticket FROM written") == [(ticket,)]


async def test_killed_with_the_event_in_hand_it_gets_it_again(crm: Crm, proxy: Proxy) -> None:
    proxy.stuck.set()
    ticket = await crm.ticket()
    await asyncio.wait_for(proxy.taken.wait(), 60)
    await crm.kill()
    assert crm.sql("SELECT status FROM tickets WHERE id = ?", ticket) == [(None,)]
    proxy.stuck.clear()
    await crm.start()
    await crm.replied(ticket)
    assert crm.sql("SELECT ticket FROM written") == [(ticket,)]

"""Streams as the broker's own snapshots, under the identity `backup`: sequences, times and headers stay as they are.

In: an address and the identity's key. Out: bytes of one stream, or a stream made of them. Consumers are left out of
both: a position is only good with streams that are younger than it (see `backup`).
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from bulkhead.bus.jetstream.connection import ca_beside
from bulkhead.bus.port import BusError
from bulkhead.runtime.decider.history import SOURCE_HEADER
from bulkhead_infra.backup.archive import BackupError, StreamCopy
from bulkhead_infra.identity import keys
from bulkhead_infra.identity.policy import BACKUP
from bulkhead_infra.identity.rights import API
from bulkhead_infra.nats.provision import STREAM_NOT_FOUND, connect_options
from bulkhead_infra.nats.streams import FORMAT_STREAM, store_format_of

CHUNK_BYTES = 128 * 1024
"""The broker gives a copy up of which no piece comes for 5 s, and a busy machine takes long for a large one."""
RETRY_PAUSE_S, RETRY_WITHIN_S = 0.1, 10.0
TIMEOUT_S = 60.0
"""A large stream is laid out on the broker's disk before the first piece comes."""
OUTSIDE_SUBJECT_SETTINGS = ("republish", "sources", "mirror", "subject_transform")
"""Settings by which a stream says or takes more than its own subjects."""


class CopyRefused(BackupError):
    """The broker gave the copy of one stream up in the middle; it keeps nothing of it."""


class BackupConnection:
    """A connection as `backup`. Raises BackupError."""

    def __init__(self, client: Client, url: str, denied: "asyncio.Future[str]") -> None:
        self._client, self._url, self._denied = client, url, denied

    async def stream_names(self) -> list[str]:
        return list((await self._request_api("STREAM.NAMES", {})).get("streams") or ())

    async def stream_info(self, stream: str) -> dict[str, Any] | None:
        """Settings and state; None when there is no such stream."""
        return await self._request_api(f"STREAM.INFO.{stream}", {}, absent_code=STREAM_NOT_FOUND) or None

    async def store_format(self) -> int:
        """Number of the form of what is stored."""
        return store_format_of((await self.stream_info(FORMAT_STREAM) or {}).get("config", {}))

    async def durable_names(self, stream: str) -> list[str]:
        """Names of a stream's durables, sorted."""
        return sorted(
            (await self._request_api(f"CONSUMER.NAMES.{stream}", {}, absent_code=STREAM_NOT_FOUND)).get("consumers")
            or ()
        )

    async def ack_floor(self, stream: str, durable: str) -> int:
        """Up to which sequence a durable has acknowledged everything."""
        consumer = await self._request_api(f"CONSUMER.INFO.{stream}.{durable}", {})
        return int(consumer["ack_floor"]["stream_seq"])

    async def pause_durable(self, stream: str, durable: str, seconds: float) -> None:
        """Hand nothing out from this durable for so long; 0 ends it. Running work goes on."""
        until = datetime.fromtimestamp(time.time() + seconds if seconds else 0, UTC).isoformat()
        await self._request_api(f"CONSUMER.PAUSE.{stream}.{durable}", {"pause_until": until})

    async def last_source_sequence(self, stream: str, subject: str) -> int:
        """The sequence that the newest message of these subjects had in the stream that it comes from; 0: none."""
        request = json.dumps({"last_by_subj": subject}).encode()
        try:
            message = await self._request_with_retry(f"{API}DIRECT.GET.{stream}", request)
        except (errors.Error, OSError) as error:
            raise self._silence_error(f"the end of {stream}", error) from error
        source_fields = (message.headers or {}).get(SOURCE_HEADER, "").split(" ")
        return int(source_fields[1]) if len(source_fields) > 1 and source_fields[1].isdigit() else 0

    async def copy_stream(self, stream: str, write: Callable[[bytes], None]) -> StreamCopy | None:
        """Write a stream's snapshot; None when there is no such stream."""
        inbox = self._client.new_inbox()
        pieces = await self._client.subscribe(inbox, pending_msgs_limit=-1, pending_bytes_limit=-1)
        try:
            request = {"deliver_subject": inbox, "no_consumers": True, "chunk_size": CHUNK_BYTES}
            answer = await self._request_api(f"STREAM.SNAPSHOT.{stream}", request, absent_code=STREAM_NOT_FOUND)
            if not answer:
                return None
            while (piece := await pieces.next_msg(timeout=TIMEOUT_S)).data:
                write(piece.data)
                if piece.reply:  # The broker sends so much at a time as was taken; of the last nobody asks it.
                    await self._client.publish(piece.reply)
            status = (piece.headers or {}).get("Status", "")
            if status not in ("", "204"):
                raise BackupError(f"the broker broke off the copy of {stream} ({status}); see its log, then try again")
        except (errors.Error, OSError) as error:
            raise self._silence_error(f"the copy of {stream}", error) from error
        finally:
            if not self._client.is_closed:
                await pieces.unsubscribe()
        return stream_copy_of(stream, answer["state"])

    async def restore_stream(self, config: Mapping[str, Any], copy: StreamCopy, pieces: Iterator[bytes]) -> None:
        """Make the stream of its copy, with these settings and not with those in the copy."""
        state = {"messages": copy.messages, "bytes": copy.bytes, "first_seq": copy.first_seq, "last_seq": copy.last_seq}
        answer = await self._request_api(f"STREAM.RESTORE.{copy.name}", {"config": config, "state": state})
        try:
            for piece in pieces:
                await self._send_piece(answer["deliver_subject"], copy.name, piece)
            await self._send_piece(answer["deliver_subject"], copy.name, b"")
        except (errors.Error, OSError) as error:
            raise self._silence_error(f"the restore of {copy.name}", error) from error
        await self._check_restored(config, copy)

    async def _send_piece(self, subject: str, stream: str, piece: bytes) -> None:
        for start in range(0, max(1, len(piece)), CHUNK_BYTES):
            answer = await self._request_with_retry(subject, piece[start : start + CHUNK_BYTES])
            if answer.data.startswith(b"{") and (error := json.loads(answer.data).get("error")):
                raise CopyRefused(
                    f"the broker gave the copy of {stream} up: {error.get('description')}; on a machine that is slow "
                    "just now run it again later, else see the broker's log"
                )

    async def _check_restored(self, config: Mapping[str, Any], copy: StreamCopy) -> None:
        current = await self.stream_info(copy.name)
        if current is None or stream_copy_of(copy.name, current["state"]) != copy:
            holds = stream_copy_of(copy.name, current["state"]) if current else "nothing"
            raise BackupError(
                f"{copy.name} was restored and is not what the backup says ({holds}, not {copy}); restore another one"
            )
        strange = [name for name in OUTSIDE_SUBJECT_SETTINGS if current["config"].get(name) and not config.get(name)]
        if strange or current["state"].get("consumer_count"):
            surplus = ", ".join(strange) or "consumers of its own"
            raise BackupError(f"the copy of {copy.name} brings {surplus}, which no backup does: somebody else made it")

    async def _request_api(self, request: str, body: Mapping[str, Any], absent_code: int = 0) -> dict[str, Any]:
        """The broker's answer; {} for the error code `none`."""
        try:
            message = await self._request_with_retry(API + request, json.dumps(body).encode())
        except (errors.Error, OSError) as error:
            raise self._silence_error(request, error) from error
        answer: dict[str, Any] = json.loads(message.data)
        if "error" not in answer:
            return answer
        if answer["error"].get("err_code") == absent_code:
            return {}
        raise BackupError(f"the broker refuses {request}: {answer['error'].get('description')}; see its log")

    async def _request_with_retry(self, subject: str, body: bytes) -> Msg:
        """An answer. A request that reached nobody is repeated: in a cluster its server may not be known yet."""
        until = asyncio.get_running_loop().time() + RETRY_WITHIN_S
        while True:
            try:
                return await self._request_once(subject, body)
            except errors.NoRespondersError:
                if asyncio.get_running_loop().time() > until:
                    raise
                await asyncio.sleep(RETRY_PAUSE_S)

    async def _request_once(self, subject: str, body: bytes) -> Msg:
        """An answer. A refusal names no request: whichever is under way ends with it."""
        asking = asyncio.ensure_future(self._client.request(subject, body, timeout=TIMEOUT_S))
        ends: set[asyncio.Future[Any]] = {asking, self._denied}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            asking.cancel()
            raise errors.Error("it refused")
        return await asking

    def _silence_error(self, request: str, error: Exception) -> BackupError:
        if self._denied.done():
            return BackupError(
                f"the broker denies {self._denied.result()} to the identity {BACKUP}: it runs with accounts of another "
                "version; restart the mesh, or render the accounts again and reload the broker"
            )
        return BackupError(f"{request}: the broker at {self._url} stopped answering ({error or type(error).__name__})")


def stream_copy_of(stream: str, state: Mapping[str, Any]) -> StreamCopy:
    """A stream's state as the manifest has it. An empty stream gives 0 or the next number as its first."""
    messages, last = int(state["messages"]), int(state["last_seq"])
    first = int(state["first_seq"]) if messages else last + 1
    return StreamCopy(name=stream, messages=messages, bytes=int(state["bytes"]), first_seq=first, last_seq=last)


@asynccontextmanager
async def open_backup_connection(url: str, identity: Path) -> AsyncIterator[BackupConnection]:
    """A connection under the key of `backup` in this folder, by TLS where a CA lies beside it. Raises BackupError,
    KeyFileError."""
    seed, ca_file = keys.nkey_seed(identity, BACKUP), ca_beside(identity)
    client, denied = Client(), asyncio.get_running_loop().create_future()

    async def on_error(error: Exception) -> None:
        if not denied.done() and "permissions violation" in str(error).lower():
            denied.set_result(str(error).partition("for ")[2] or str(error))

    try:
        await client.connect(url.split(","), error_cb=on_error, **connect_options(BACKUP, seed, ca_file))
    except (BusError, errors.Error, OSError) as error:
        raise BackupError(
            f"cannot reach the broker at {url} as {BACKUP}: {error}; is it running, and does it know this identity (a "
            "mesh that was started by an older version does not: restart it)?"
        ) from error
    try:
        yield BackupConnection(client, url, denied)
    finally:
        await client.close()

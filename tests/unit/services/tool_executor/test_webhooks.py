"""A tenant's webhook: signed, posted until taken, once per id in the end, and never where it may not go."""

import asyncio
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.errors import HandBack
from bulkhead.testing.mesh import MemoryMesh
from bulkhead.tools.api import Response, Unanswered
from bulkhead_contracts import catalog
from bulkhead_contracts.budget import NoticeRequested
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.event import EventPostRequested
from bulkhead_contracts.types import Body
from bulkhead_services.tool_executor.app import build
from bulkhead_services.tool_executor.outbound import delivery, webhooks
from bulkhead_services.tool_executor.outbound.webhooks import Webhooks
from bulkhead_services.tool_executor.settings import Settings
from tests.open_policy import permitted

NOON = 1_795_262_400_000
SECRET = "kept-between-the-two-of-us"
DAY_MS = 24 * 3_600_000
ASKED = NoticeRequested(
    notice="5d1be24c6f8a7d2e4b6c8f0a120f3c9a",
    kind="share",
    account="task:acme:t1",
    unit="tokens",
    percent=80,
    spent=81,
    limit=100,
    what="task t1 has spent 81 of 100 tokens (81 %)",
    hint="`bulkhead topup t1 --tokens 100`",
    told_unix_ms=NOON,
)


@dataclass
class Wire:
    """The outside: says `answers` in turn, the last one for ever; keeps what came."""

    answers: list[Response | Unanswered] = field(default_factory=lambda: [said(200)])
    addresses: tuple[str, ...] = ("93.184.216.34",)
    posted: list[tuple[str, str, bytes, Mapping[str, str]]] = field(default_factory=list)
    held: asyncio.Event | None = None

    async def resolve(self, host: str, port: int) -> tuple[str, ...]:
        return self.addresses

    async def post_to(
        self, url: str, address: str, body: bytes, headers: dict[str, str], max_bytes: int
    ) -> Response | Unanswered:
        self.posted.append((url, address, body, headers))
        if self.held is not None:
            await self.held.wait()
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def said(status: int) -> Response:
    return Response(status=status, media_type="", body=b"", truncated=False, location="http://10.0.0.1/", charset="")


@dataclass
class Post:
    """Webhooks of one replica, and what came of a notice."""

    wire: Wire
    file: Path
    now: int = NOON
    hooks: Webhooks = field(init=False)

    def __post_init__(self) -> None:
        self.file.write_text(SECRET + "\n")
        self.hooks = self.made(f"https://hooks.example.org/{'x' * 3}")

    def made(self, url: str, **more: Any) -> Webhooks:
        row = {"url": url, "secret_file": str(self.file)}
        return Webhooks(Settings(webhooks={"acme": row}, **more), self.wire, lambda: self.now)

    async def take(self, asked: Body = ASKED, *, tenant: str = "acme", sequence: int = 1) -> float:
        """Seconds until it comes again; 0 when it is done with."""
        head = Envelope("e" * 32, asked.ce_type(), "budget", NOON)
        try:
            await self.hooks.on_post_requested(ReceivedMessage(head, asked, tenant, "t1", "budget", sequence, NOON, 1))
        except HandBack as retry:
            assert retry.reason
            return retry.delay_s
        return 0.0


@pytest.fixture
def post(tmp_path: Path) -> Post:
    return Post(Wire(), tmp_path / "secret")


def verified(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """As the documents tell receivers to."""
    found = {key.lower(): value for key, value in headers.items()}
    text = found["bulkhead-timestamp"].encode() + b"." + body
    mine = "v1=" + hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()
    return hmac.compare_digest(mine, found["bulkhead-signature"])


async def test_it_is_posted_once_signed_to_the_very_address_that_was_checked(post: Post) -> None:
    assert await post.take() == 0
    ((url, address, body, headers),) = post.wire.posted
    assert (url, address) == ("https://hooks.example.org/xxx", "93.184.216.34")
    assert verified(SECRET, headers, body) and not verified(SECRET, headers, body + b" ")
    assert not verified("another secret of some length", headers, body) and SECRET not in str(headers)
    told = json.loads(body)
    assert told["id"] == headers["bulkhead-event-id"] == ASKED.notice and told["what_to_do"] == ASKED.hint
    assert (told["type"], told["tenant"], told["task"], told["percent"]) == ("budget.alert", "acme", "t1", 80)
    day = ASKED.model_copy(update={"account": "day:acme:2026-11-21"})
    assert json.loads(webhooks.post_of("acme", "t1", day).body)["task"] == "", "a day is no single task's"
    assert await post.take(tenant="demo") == 0 and len(post.wire.posted) == 1, "who has no webhook is told nothing"


EVENT = EventPostRequested(
    id="0f3c5a7d9b1e2f4a6c8d0e1f2a3b4c5d",
    event="event.task.ended.v1",
    time_unix_ms=NOON,
    data_json='{"tenant":"acme","task":"t1"}',
)


async def test_an_event_is_posted_as_a_cloud_event_and_signed_as_notices_are(post: Post) -> None:
    assert await post.take(EVENT) == 0
    ((*_, body, headers),) = post.wire.posted
    assert verified(SECRET, headers, body) and headers["content-type"] == "application/cloudevents+json"
    assert headers["bulkhead-event-id"] == EVENT.id
    assert json.loads(body) == {
        "specversion": "1.0",
        "id": EVENT.id,
        "source": "gateway",
        "type": "event.task.ended.v1",
        "subject": "t1",
        "time": "2026-11-21T12:00:00.000Z",
        "datacontenttype": "application/json",
        "data": {"tenant": "acme", "task": "t1"},
    }


@pytest.mark.parametrize(("event", "change"), [("budget.alert", {}), ("task.halted", {"kind": "halted"})])
async def test_what_is_posted_as_an_event_is_not_posted_as_a_notice_too(
    post: Post, event: str, change: dict[str, Any]
) -> None:
    asked, url = ASKED.model_copy(update=change), "https://hooks.example.org/"
    for wanted, times in ((("task.ended",), 1), (("task.ended", event), 1)):
        post.hooks = post.made(url, webhook_events={"acme": wanted})
        assert await post.take(asked) == 0 and len(post.wire.posted) == times


def test_events_for_a_tenant_without_a_webhook_are_told_at_the_start() -> None:
    [problem] = Settings(webhook_events={"acme": ("task.ended",)}).start_problems()
    assert problem.startswith("acme is to be told events and has no webhook: name its URL")


async def test_what_nobody_takes_comes_again_ever_later_under_one_id_and_ends_after_a_day(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []
    monkeypatch.setattr(webhooks, "_count_outcome", ended.append)
    post.wire.answers = [said(500), said(302), said(404), Unanswered("ConnectError", sent=False), said(503)]
    waits = []
    while wait := await post.take():
        waits.append(wait)
        post.now += int(wait * 1000)
    assert waits[:5] == [1, 1, 2, 4, 8] and max(waits) == 3600 and DAY_MS - 3_600_000 < sum(waits) * 1000 <= DAY_MS
    assert len({headers["bulkhead-event-id"] for *_, headers in post.wire.posted}) == 1
    assert len({body for *_, body, _ in post.wire.posted}) == 1 and len(waits) < 50
    stamps = {headers["bulkhead-timestamp"] for *_, headers in post.wire.posted}
    assert len(stamps) == len(waits) + 1, "a recorded one is old soon"
    assert ended == ["again"] * len(waits) + ["given_up"]
    post.wire.answers = [said(410)]
    assert await post.take() == 0 and ended[-1] == "given_up", "gone is gone"


@pytest.mark.parametrize("address", ["10.0.0.5", "127.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.5"])
async def test_no_private_address_is_reached_unless_an_operator_names_it(post: Post, address: str) -> None:
    post.wire.addresses = ("93.184.216.34", address)
    assert await post.take() == 0 and not post.wire.posted
    post.hooks = post.made("https://hooks.example.org/", webhook_private_hosts=("hooks.example.org",))
    assert await post.take() == 0 and len(post.wire.posted) == 1


async def test_plain_http_is_for_named_hosts_alone(post: Post) -> None:
    post.hooks = post.made("http://hooks.example.org/")
    assert await post.take() == 0 and not post.wire.posted
    post.hooks = post.made("http://hooks.example.org/", webhook_private_hosts=("hooks.example.org:80",))
    assert await post.take() == 0 and len(post.wire.posted) == 1


@pytest.mark.parametrize("url", ["ftp://x.org/", "https://a:b@x.org/", "https://x.org:99999/", "x.org", "https://x .y"])
def test_what_is_no_url_is_told_at_the_start(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        Settings(webhooks={"acme": {"url": url, "secret_file": str(tmp_path / "secret")}})


async def test_without_a_secret_nothing_is_posted_and_a_changed_one_counts_at_once(post: Post) -> None:
    post.file.write_text("short")
    assert await post.take() == 1 and not post.wire.posted
    post.file.unlink()
    assert await post.take() == 1 and not post.wire.posted
    post.file.write_text("a new one that is long enough")
    assert await post.take() == 0
    ((*_, body, headers),) = post.wire.posted
    assert verified("a new one that is long enough", headers, body)


async def test_a_receiver_that_is_slow_or_down_holds_only_so_many_places(post: Post) -> None:
    post.wire.held = asyncio.Event()
    under_way = [asyncio.create_task(post.take(sequence=number)) for number in range(delivery.MAX_POSTS_AT_ONCE)]
    while len(post.wire.posted) < delivery.MAX_POSTS_AT_ONCE:
        await asyncio.sleep(0)
    assert (
        await post.take(sequence=10) == delivery.BUSY_RETRY_MS / 1000
        and len(post.wire.posted) == delivery.MAX_POSTS_AT_ONCE
    )
    post.wire.held.set()
    assert await asyncio.gather(*under_way) == [0.0] * delivery.MAX_POSTS_AT_ONCE
    post.wire.answers = [said(500)]
    waits = [await post.take(sequence=100 + number) for number in range(webhooks.MAX_WAITING + 5)]
    assert waits.count(0.0) == 6, "one place was taken by what came while others were under way"
    assert await post.take(sequence=100) == 1, "what waits already keeps its place"


class Receiver:
    """A real server: fails each event once, then takes it. came: (path, headers, body); taken: their ids."""

    def __init__(self) -> None:
        self.came: list[tuple[str, dict[str, str], bytes]] = []
        self.taken: list[str] = []
        self._failed: set[str] = set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None: ...

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.came.append((self.path, dict(self.headers), body))
                name = self.headers["bulkhead-event-id"]
                fails = name not in receiver._failed
                (receiver._failed.add if fails else receiver.taken.append)(name)
                self.send_response(500 if fails else 204)
                self.send_header("content-length", "0")
                self.end_headers()

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.host = f"localhost:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.mark.parametrize(("sender", "asked", "words"), [("budget", ASKED, ASKED.what), ("gateway", EVENT, EVENT.id)])
async def test_a_real_receiver_that_fails_first_gets_it_again_and_the_secret_is_in_no_message(
    sender: str, asked: Body, words: str, receiver: Receiver, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    row = {"url": f"http://{receiver.host}/alerts", "secret_file": str(file)}
    settings = Settings(webhooks={"acme": row}, webhook_private_hosts=(receiver.host,))
    async with MemoryMesh({"tool_executor": lambda context: build(context, settings, rule=permitted)}) as mesh:
        publisher = mesh.context(sender).publisher
        await publisher.send("tool_executor", asked, tenant="acme", task="t1", cause="c" * 32)
        async with asyncio.timeout(60):
            shell = mesh.running[("tool_executor", "0")].service.shell
            while shell is None or not shell.handled:
                await asyncio.sleep(0.02)
        streams = [f"INBOX_{name.upper()}" for name in catalog.INBOXES]
        texts = [
            f"{one.subject} {one.headers} {one.body!r}"
            for name in (*streams, "DEAD_LETTERS")
            for one in await mesh.messages(name)
        ]
    assert len(receiver.came) >= 2 and {path for path, *_ in receiver.came} == {"/alerts"}
    assert len({headers["bulkhead-event-id"] for _, headers, _ in receiver.came}) == 1
    assert all(verified(SECRET, headers, body) for _, headers, body in receiver.came)
    assert words.encode() in receiver.came[-1][2] and json.loads(receiver.came[-1][2])
    assert len(texts) == 1 and words in texts[0], "no dead letter, no rejection, nothing said again"
    out, err = capfd.readouterr()
    assert SECRET not in "".join((*texts, out, err))

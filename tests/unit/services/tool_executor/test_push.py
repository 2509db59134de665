"""Push notifications as they are posted: to the address that was checked at this very try, until they are stopped."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bulkhead.quotas.tenant_quotas import TenantQuotas
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.errors import HandBack
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts import subjects
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.push import PushConfigDeleted, PushEnded, PushPostRequested
from bulkhead_contracts.types import Body
from bulkhead_services.tool_executor.app import build
from bulkhead_services.tool_executor.outbound.push import PushSender
from bulkhead_services.tool_executor.settings import Settings
from tests.open_policy import permitted
from tests.unit.services.tool_executor.test_webhooks import Wire, said

ASKED = PushPostRequested(
    config_id="hook",
    setting=3,
    update=5,
    url="https://hooks.example.org/x",
    token="t0ken",
    status="running",
    at_unix_ms=1_795_262_400_000,
)


@dataclass
class Post:
    """One replica, and what came of a request."""

    mesh: MemoryMesh
    file: Path
    wire: Wire = field(default_factory=Wire)

    def __post_init__(self) -> None:
        self.allow("hooks.example.org")
        context = self.mesh.context("tool_executor")
        self.pushes = PushSender(context, TenantQuotas(self.file), self.wire)
        self.now = context.clock()

    def allow(self, *hosts: str) -> None:
        self.file.write_text(json.dumps({"tenants": {"acme": {"push": {"hosts": hosts}}}}))

    async def take(self, asked: Body = ASKED) -> float:
        """Seconds until it comes again; 0 when it is done with."""
        message = ReceivedMessage(
            Envelope("e" * 32, asked.ce_type(), "gateway", self.now), asked, "acme", "t1", "gateway", 1, self.now, 1
        )
        try:
            await (
                self.pushes.on_push_config_deleted
                if isinstance(asked, PushConfigDeleted)
                else self.pushes.on_push_post_requested
            )(message)
        except HandBack as retry:
            return retry.delay_s
        return 0.0

    async def ended(self) -> list[PushEnded]:
        stored = await self.mesh.messages(subjects.inbox_stream("gateway"))
        return [PushEnded.model_validate_json(one.body) for one in stored]


@pytest.fixture
async def post(tmp_path: Path) -> AsyncIterator[Post]:
    service = {"tool_executor": lambda context: build(context, Settings(), rule=permitted)}
    async with MemoryMesh(service) as mesh:  # type: ignore[arg-type]
        yield Post(mesh, tmp_path / "tenants.yaml")


async def test_it_is_posted_to_the_checked_address_and_told_once_however_often_it_comes(post: Post) -> None:
    assert await post.take() == 0 and await post.take() == 0
    (url, address, body, headers), _ = post.wire.posted
    assert (url, address, headers["X-A2A-Notification-Token"]) == (ASKED.url, "93.184.216.34", "t0ken")
    assert json.loads(body)["statusUpdate"]["status"]["state"] == "TASK_STATE_WORKING"
    [end] = await post.ended()
    assert (end.outcome, end.setting, end.update) == ("delivered", 3, 5)


@pytest.mark.parametrize("form", ["1.0", "0.3"])
async def test_an_answer_is_posted_with_whether_it_answers(post: Post, form: str) -> None:
    content = await post.mesh.context("model_gateway").blobs.put("acme", "The documents do not say it.")
    ended = {"form": form, "status": "succeeded", "answer": content, "standing": "ok", "answered": "no"}
    assert await post.take(ASKED.model_copy(update=ended)) == 0
    posted = "".join(body if isinstance(body, str) else body.decode() for _, _, body, _ in post.wire.posted)
    assert "The documents do not say it." in posted and '"answered":"no"' in posted.replace(" ", "")


@pytest.mark.parametrize("address", ["10.0.0.5", "127.0.0.1", "169.254.169.254", "224.0.0.1", "::1", "::ffff:10.0.0.5"])
async def test_a_name_that_leads_inside_at_a_later_try_is_given_up(post: Post, address: str) -> None:
    post.wire.answers = [said(503)]
    assert await post.take() == 1
    post.wire.addresses = ("93.184.216.34", address)
    assert await post.take() == 0 and len(post.wire.posted) == 1
    [end] = await post.ended()
    assert end.outcome == "given_up" and f"resolves to {address}" in end.reason


async def test_a_host_that_the_row_names_no_more_is_given_up(post: Post) -> None:
    post.wire.answers = [said(503)]
    assert await post.take() == 1
    post.allow("other.example.org", "*.longer.example.org")
    assert await post.take() == 0 and len(post.wire.posted) == 1
    [end] = await post.ended()
    assert "none of the hosts" in end.reason


async def test_what_is_stopped_is_posted_no_more_and_what_is_set_later_is(post: Post) -> None:
    post.wire.answers = [said(503)]
    assert await post.take() == 1
    for setting in (3, 1):
        assert await post.take(PushConfigDeleted(config_id="hook", setting=setting)) == 0
    assert await post.take() == 0 and len(post.wire.posted) == 1 and not await post.ended()
    post.wire.answers = [said(200)]
    later: dict[str, Any] = {"setting": 9, "update": 9}
    assert await post.take(ASKED.model_copy(update=later)) == 0
    assert await post.take(ASKED.model_copy(update={"config_id": "other"})) == 0
    assert len(post.wire.posted) == 3

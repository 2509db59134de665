"""Many calls with an image at once: together they spend no more than the day's limit, by the provider's own figures."""

import asyncio
import base64
import json

import openai
import pytest

from tests.eventually import until
from tests.integration.doors.whole_mesh import MODEL, whole_mesh
from tests.unit.services.model_gateway.scripted_provider import Exchange, says, usage

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (2_000).to_bytes(4, "big") * 2 + bytes(1_000)
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(PNG).decode()}}
BILLED_TOKENS = 25_501
"""OpenAI's bill for this image to gpt-4o-mini: 2,833, and 5,667 for each of four tiles."""
CALLS, ADMITTED = 16, 4


@pytest.mark.slow
async def test_calls_with_an_image_at_once_keep_the_days_limit(tmp_path):
    tokens = ADMITTED * (BILLED_TOKENS + 8_000)
    day = {"tokens": tokens, "cost_usd_micros": 10**9}

    async def answer_together(exchange: Exchange) -> None:
        """Answered when as many as the limit admits are in flight: each was reserved beside the others."""
        await until(lambda: _has_calls(here.provider.asked))
        await says("a cat", told=usage(BILLED_TOKENS + 20, 5))(exchange)

    async with whole_mesh(tmp_path, answer_together, policy={"day": day}) as here, here.client(max_retries=0) as sdk:

        async def ask(number: int) -> str:
            said = [{"type": "text", "text": f"What is in picture {number}?"}, IMAGE]
            messages = [{"role": "user", "content": said}]
            try:
                reply = await sdk.chat.completions.create(model=MODEL, messages=messages, max_tokens=100)
            except openai.APIStatusError as refusal:
                assert "day" in json.dumps(refusal.body), refusal.body
                return ""
            return reply.choices[0].message.content

        replies = await asyncio.gather(*map(ask, range(CALLS)))
        assert replies.count("a cat") == len(here.provider.asked) >= ADMITTED - 1
        paid = await here.settled()
        spent = sum(one.usage.input_tokens + one.usage.output_tokens for one in paid)
        assert len(here.provider.asked) * BILLED_TOKENS <= spent <= tokens


async def _has_calls(exchanges: list[Exchange]) -> bool:
    return len(exchanges) >= ADMITTED - 1

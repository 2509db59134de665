"""Embeddings by the unmodified `openai` client: stored, reserved and paid once, as any other call."""

import json

import openai
import pytest

from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.result import EMBEDDINGS
from tests.integration.doors.whole_mesh import MODEL, whole_mesh


def embeds(*vectors, tokens=7):
    async def script(x):
        rows = [{"object": "embedding", "index": at, "embedding": row} for at, row in enumerate(vectors)]
        told = {"prompt_tokens": tokens, "total_tokens": tokens}
        await x.json(200, {"object": "list", "data": rows, "model": "scripted-1", "usage": told})

    return script


async def test_vectors_are_the_providers_and_paid_once_also_by_a_retry(tmp_path):
    async with whole_mesh(tmp_path, embeds([0.5, 0.25], [1.0, -1.0])) as here:
        client = here.client()
        asked = {"model": MODEL, "input": ["one", "two"], "encoding_format": "float", "dimensions": 2}
        first = await client.embeddings.with_raw_response.create(**asked)
        said = first.parse()
        assert [row.embedding for row in said.data] == [[0.5, 0.25], [1.0, -1.0]] and said.usage.total_tokens == 7
        again = await client.embeddings.create(**asked, extra_headers={"x-stainless-retry-count": "1"})
        assert again.data == said.data and len(here.provider.asked) == 1
        [sent] = here.provider.asked
        assert sent.path == "/v1/embeddings" and sent.body == asked
        [settled] = await here.settled()
        assert (settled.usage.input_tokens, settled.usage.output_tokens, settled.failed) == (7, 0, "")
        [reply] = await here.bodies(ModelCallReplied, "doors")
        assert reply.content.media_type == EMBEDDINGS and reply.content.summary == ""
        assert first.headers["x-bulkhead-task"].startswith("doors-")


async def test_what_cannot_be_embedded_is_refused_by_name(tmp_path):
    async with whole_mesh(tmp_path, embeds("AAAAPw==")) as here:
        client = here.client()
        for value in ("", [], ["a", 1], [""], [[1], "a"], {"a": 1}, [-1]):
            with pytest.raises(openai.BadRequestError) as refused:
                await client.embeddings.create(model=MODEL, input=value)
            assert refused.value.param == "input"
        assert not here.provider.asked
        tokens = await client.embeddings.create(model=MODEL, input=[[1, 2], [3]])
        assert tokens.data[0].embedding == [0.5] and here.provider.asked[0].body["input"] == [[1, 2], [3]]


async def test_an_answer_without_vectors_is_an_error_and_no_success(tmp_path):
    async def talks(x):
        await x.json(200, {"choices": [], "data": [], "usage": {"prompt_tokens": 3}})

    async with whole_mesh(tmp_path, talks) as here:
        with pytest.raises(openai.InternalServerError) as told:
            await here.client().embeddings.create(model=MODEL, input="a")
        assert "no embeddings in the body" in json.dumps(told.value.body)

"""Live text under an output policy: a scripted provider that says right and wrong sentences, over real sockets."""

import asyncio

import pytest

from bulkhead_contracts.model import Part, TextDelta
from bulkhead_contracts.output import OutputPolicy
from tests.unit.services.model_gateway.gateway_desk import DEADLINE_S, desk
from tests.unit.services.model_gateway.scripted_provider import ScriptedProvider, chunk, usage

RIGHT = "The handling fee is 40.00 EUR per passenger."
PIECES = (
    "Sure! Dogs travel free",
    " in every cabin on weekends. The handling",
    f" fee is 40.00 EUR per passenger. {RIGHT[:20]}",
)


@pytest.fixture
async def provider():
    async with ScriptedProvider() as found:
        yield found


async def heard(provider, policy, pieces=PIECES):
    """Text that goes live of a call under a policy, its marker, and whether each piece is said to be verified."""

    async def script(x):
        await x.begin()
        for piece in pieces:
            await x.event(chunk({"content": piece}))
            await asyncio.sleep(0)
        await x.event(chunk(finish="stop", usage=usage()))
        await x.end()

    provider.will(script)
    async with desk(provider) as d:
        live = await d.live()
        passage = await d.store(f"{RIGHT} Dogs must stay in the hold.")
        parts = (Part(kind="step", text="What is the fee?"), Part(kind="passage", content=passage, source="f.md"))
        await d.answered(d.request(parts=parts, output=policy))
        # The reply comes after all live text: a marker of our own shows that nothing is still under way.
        end = TextDelta(call_id="end", offset=0, text="end")
        subject = f"live.model_gateway.{'demo'}.{'t1'}"
        await d.mesh.context("model_gateway").bus.publish_live(subject, end.model_dump_json().encode())
        deltas = []
        async with asyncio.timeout(DEADLINE_S):
            async for row in live:
                deltas.append(TextDelta.model_validate_json(row.body))
                if deltas[-1].call_id == "end":
                    break
    return "".join(row.text for row in deltas[:-1]), passage.marker, {row.verified for row in deltas[:-1]}


async def test_a_draft_streams_every_word(provider):
    assert (await heard(provider, None))[0] == "".join(PIECES)


@pytest.mark.parametrize(
    "policy",
    [OutputPolicy(delivery="held"), OutputPolicy(delivery="verified", topics=("fees",)), OutputPolicy(topics=("x y",))],
)
async def test_nothing_goes_live_under_held_nor_where_only_the_judge_knows_the_topic(provider, policy):
    assert (await heard(provider, policy))[0] == ""


async def test_under_verified_only_whole_sentences_with_a_source_go_live(provider):
    text, marker, verified = await heard(provider, OutputPolicy(delivery="verified"))
    assert text == f"{RIGHT[:-1]} [#{marker}].\n" and verified == {True}


async def test_thinking_does_not_go_live_even_where_a_source_says_it(provider):
    pieces = ("<think>Let me see. Dogs must stay", " in the hold. That is all.\n</think>\n\n", *PIECES[1:])
    text, marker, _ = await heard(provider, OutputPolicy(delivery="verified"), pieces)
    assert text == f"{RIGHT[:-1]} [#{marker}].\n"


async def test_a_forbidden_sentence_does_not_go_live_in_a_draft_either(provider):
    text, _, verified = await heard(provider, OutputPolicy(forbidden=("handling fee",)))
    assert "fee" not in text and "Sure!" in text and verified == {False}

"""The loop of a program that carries out steps: one answer each, errors told, lost steps given up, silence outlived."""

import asyncio
import logging
import time
from dataclasses import dataclass, field

import httpx
import pytest

from bulkhead.client.errors import Refused, Unreachable
from bulkhead.client.steps import HttpSteps, Step, Steps
from bulkhead_contracts.delegation import AnswerAccepted, HandedStep, StepAnswer, StepBeaten
from tests.eventually import until

HANDED = HandedStep(
    id="c1",
    key="bks_x",
    number=1,
    task="t1",
    step="a",
    role="refunds",
    attempt=1,
    instruction="do it",
    deadline_unix_ms=2**50,
    beat_s=0.01,
)


@dataclass
class Doors:
    """Steps to hand out, and what is said of beats and of answers."""

    steps: list[HandedStep | Exception]
    beaten: StepBeaten = StepBeaten(go_on=True)
    refusals: list[Exception] = field(default_factory=list)
    beats: int = 0
    answers: list[StepAnswer] = field(default_factory=list)

    async def take_step(self, role: str, holder: str) -> HandedStep | None:
        assert role == "refunds" and "/" in holder
        if not self.steps:
            await asyncio.Event().wait()
        found = self.steps.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async def send_beat(self, step: HandedStep) -> StepBeaten:
        self.beats += 1
        return self.beaten

    async def send_answer(self, step: HandedStep, answer: StepAnswer) -> AnswerAccepted:
        self.answers.append(answer)
        if self.refusals:
            raise self.refusals.pop(0)
        return AnswerAccepted()

    async def close(self) -> None:
        pass


async def run(doors: Doors, handler, done) -> None:
    steps = Steps("http://doors", "key", port=doors)
    steps.on("refunds")(handler)
    running = asyncio.create_task(steps.run())
    try:
        await until(done)
    finally:
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_a_handlers_text_is_the_answer_and_beats_go_out_meanwhile():
    doors = Doors([HANDED])

    async def handler(step: Step) -> str:
        assert (step.openai, step.handed.key) == ("http://doors/openai/v1", "bks_x")
        await until(lambda: doors.beats > 1)
        return "60.00"

    await run(doors, handler, lambda: doors.answers)
    assert doors.answers == [StepAnswer(text="60.00")]


async def test_an_error_fails_the_attempt_by_its_words_and_the_next_step_is_taken():
    doors = Doors([HANDED, HANDED])

    async def handler(step: Step) -> str:
        raise LookupError("no such customer")

    await run(doors, handler, lambda: len(doors.answers) == 2)
    assert doors.answers[0].failed == "LookupError: no such customer"


async def test_a_lost_step_is_given_up_without_an_answer():
    doors, given_up = Doors([HANDED], StepBeaten(go_on=False, reason="another holder has it")), []

    async def handler(step: Step) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            given_up.append(step)
            raise
        return ""

    await run(doors, handler, lambda: given_up)
    assert not doors.answers


async def test_silent_doors_are_asked_again_and_a_late_answer_is_told_once(monkeypatch):
    monkeypatch.setattr("bulkhead.client.steps.AGAIN_S", 0.01)
    late = Refused(409, {"detail": "too late", "code": "late"})
    doors = Doors([Unreachable("away"), HANDED, HANDED], refusals=[Unreachable("away"), late])

    async def handler(step: Step) -> str:
        return "x"

    await run(doors, handler, lambda: len(doors.answers) == 3)


async def test_an_answer_that_cannot_be_given_is_given_up_at_the_steps_deadline(monkeypatch, caplog):
    monkeypatch.setattr("bulkhead.client.steps.AGAIN_S", 0.05)
    soon = HANDED.model_copy(update={"deadline_unix_ms": round(time.time() * 1000) + 300})
    doors = Doors([soon, HANDED], refusals=[Unreachable("the mesh is away")] * 1_000)

    async def handler(step: Step) -> str:
        if step.handed is HANDED:
            doors.refusals.clear()
            return "the next"
        return "x"

    with caplog.at_level(logging.ERROR, "bulkhead.steps"):
        await run(doors, handler, lambda: doors.answers and doors.answers[-1].text == "the next")
    assert len(doors.answers) > 2, "until the deadline it is said again"
    [told] = caplog.messages
    assert "step a of task t1" in told and "deadline passed" in told and "the mesh is away" in told


@pytest.mark.parametrize("silence", [Unreachable("away"), None], ids=["error", "hangs"])
async def test_a_holder_that_reaches_nobody_stops_before_another_begins(silence):
    doors, given_up = Doors([HANDED]), []

    async def beat(step: HandedStep) -> StepBeaten:
        if silence is None:
            await asyncio.Event().wait()
        raise silence

    doors.send_beat = beat

    async def handler(step: Step) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            given_up.append(step)
            raise
        return ""

    await run(doors, handler, lambda: given_up)
    assert not doors.answers


async def test_an_error_of_doors_themselves_ends_no_program():
    answer = httpx.MockTransport(lambda request: httpx.Response(500, text="oops"))
    port = HttpSteps("http://doors", "key")
    port._http = httpx.AsyncClient(base_url="http://doors", transport=answer)
    with pytest.raises(Unreachable):
        await port.take_step("refunds", "host/1")

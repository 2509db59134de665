"""Answers that are shared by those who ask at the same time."""

import asyncio

import pytest

from bulkhead_services.gateway.problems import Problem, unavailable
from bulkhead_services.gateway.read_model.shared_answers import SharedAnswers


class Maker:
    """Makes numbers, each when it may."""

    def __init__(self):
        self.made, self.goes_on = 0, asyncio.Event()

    async def __call__(self):
        self.made += 1
        number = self.made
        await self.goes_on.wait()
        return number


async def test_who_comes_while_an_answer_is_made_shares_the_next_one():
    answers, make = SharedAnswers(), Maker()
    first = asyncio.create_task(answers.get_answer("q", make))
    await asyncio.sleep(0.01)
    later = [asyncio.create_task(answers.get_answer("q", make)) for _ in range(100)]
    other = asyncio.create_task(answers.get_answer("other", make))
    await asyncio.sleep(0.01)
    assert make.made == 2, "one for each question"
    make.goes_on.set()
    assert await first == 1 and await other == 2
    assert await asyncio.gather(*later) == [3] * 100
    assert await answers.get_answer("q", make) == 4, "nothing is kept"


async def test_who_leaves_takes_nothing_from_the_others():
    answers, make = SharedAnswers(), Maker()
    first, second = (asyncio.create_task(answers.get_answer("q", make)) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    make.goes_on.set()
    assert await second == 2


async def test_a_problem_is_shared_and_not_met_by_each_in_turn():
    answers, made = SharedAnswers(), []

    async def fails():
        made.append(1)
        await asyncio.sleep(0.01)
        raise unavailable("budget does not answer", "ask again")

    found = await asyncio.gather(*(answers.get_answer("q", fails) for _ in range(50)), return_exceptions=True)
    assert all(isinstance(one, Problem) for one in found) and len(made) <= 2
    with pytest.raises(Problem):
        await answers.get_answer("q", fails)

"""One answer for all who ask the same at the same time.

In: a question's key, and how its answer is made. Out: an answer that was begun after the question came: those who come
while one is made share the next. Why: a hundred pages hear of the same news in the same moment.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from bulkhead_services.gateway.problems import Problem

Answer = TypeVar("Answer")


class _SharedAnswer(Generic[Answer]):
    def __init__(self) -> None:
        self.lock, self.begun_s = asyncio.Lock(), float("-inf")
        self.answer: Answer | Problem | None = None


class SharedAnswers(Generic[Answer]):
    """Questions that somebody asks now; nothing is kept when nobody does."""

    def __init__(self) -> None:
        self._open: WeakValueDictionary[Hashable, _SharedAnswer[Answer]] = WeakValueDictionary()

    async def get_answer(self, key: Hashable, make: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer. Raises Problem, which is shared as well; one who leaves takes nothing from the others."""
        loop = asyncio.get_running_loop()
        came_s = loop.time()
        question = self._open.setdefault(key, _SharedAnswer[Answer]())
        async with question.lock:
            if question.answer is None or question.begun_s < came_s:
                begun_s = loop.time()
                try:
                    question.answer = await make()
                except Problem as problem:
                    question.answer = problem
                question.begun_s = begun_s
            answer = question.answer
        if isinstance(answer, Problem):
            raise answer
        return answer

"""A person with a session at the console of a mesh in this process, without a browser."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from tests.replay.stage import Stage


@asynccontextmanager
async def browsing(on: Stage, key: str) -> AsyncIterator[httpx.AsyncClient]:
    """A person who is signed in. Forms are sent as a browser sends them from a page of the console."""
    async with httpx.AsyncClient(base_url=on.url, headers={"Origin": on.url}, follow_redirects=True) as client:
        assert (await client.post("/login", data={"api_key": key})).status_code == 200
        yield client


def form(page: str, holds: str) -> dict[str, str]:
    """The hidden fields of the one form of a page that holds this text."""
    [found] = [one for one in re.findall(r"<form.*?</form>", page, re.S) if holds in one]
    return dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', found))

"""The smallest GET: for probes of processes on this machine, many times a second, without a client library."""

import asyncio
from urllib.parse import urlsplit

MAX_ANSWER_BYTES = 16 * 1024 * 1024


async def get_url(url: str, timeout_s: float = 2.0) -> tuple[int, bytes]:
    """Status and body. Raises OSError (also for no answer in time, or no HTTP)."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            try:
                path = parts.path + (f"?{parts.query}" if parts.query else "")
                writer.write(f"GET {path or '/'} HTTP/1.0\r\nhost: {parts.netloc}\r\n\r\n".encode())
                await writer.drain()
                answer = await reader.read(MAX_ANSWER_BYTES)
                while piece := await reader.read(MAX_ANSWER_BYTES - len(answer)):
                    answer += piece
            finally:
                writer.close()
    except TimeoutError as error:
        raise OSError(f"no answer within {timeout_s:g} s") from error
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if len(words) < 2 or not words[1].isdigit():
        raise OSError("the answer is no HTTP")
    return int(words[1]), body


async def readiness_problem(url: str) -> str:
    """The problem that a health address reports; "" when it answers 200."""
    try:
        code, body = await get_url(url, timeout_s=2.0)
    except OSError as error:
        return f"no answer from {url}: {error}"
    return "" if code == 200 else body.decode("utf-8", "replace")[:300]

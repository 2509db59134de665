"""A provider that answers at once: OpenAI's chat format over HTTP, in a process of its own, with nothing behind it.

In: chat completions of the model gateway. Out: a plan of one step where a plan is asked for, `accept` where a verdict
is, one tool call where tools are offered and none was answered, else a short text. `python -m tests.bench.instant`
prints its port. A step whose text says STAMP gets PAUSE_S of silence, and then the nanosecond at which its first token
left as that token: the watcher on the other side of the mesh compares clocks of one machine.
"""

import asyncio
import itertools
import json
import sys
import time
from typing import Any

STEP = {"id": "s1", "title": "Do it", "tools": [], "inputs": [], "acceptance": "Says that it is done."}
PAUSE_S = 0.15
"""Time to the first token where it is stamped: long enough that the watcher listens by then."""
USAGE = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
_numbers = itertools.count()


def reply(request: dict[str, Any], number: int) -> dict[str, Any]:
    """The assistant's message for the number-th request. No two are the same: what is known is not stored again, and
    that would flatter. The number is told in letters, for the checker computes again what it finds in digits."""
    word = "".join(chr(ord("a") + int(digit)) for digit in str(number))
    form = request.get("response_format", {}).get("json_schema", {}).get("name", "").lower()
    if form == "plan":
        plan = {"steps": [STEP | {"instruction": f"Say that {word} is done."}]}
        return {"role": "assistant", "content": json.dumps(plan)}
    if form == "verdict":
        verdict = {"verdict": "accept", "score": 1, "reasons": [f"{word} meets the acceptance"]}
        return {"role": "assistant", "content": json.dumps(verdict)}
    results = [message["content"] for message in request["messages"] if message["role"] == "tool"]
    if request.get("tools") and not results:
        arguments = json.dumps({"expression": f"{number} + 2"})
        function = {"name": request["tools"][0]["function"]["name"], "arguments": arguments}
        call = {"index": 0, "id": "call_1", "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    # What no source says is rejected, and the step would be made twice.
    content = f"The result is {results[-1]}." if results else f"What was asked for, {word}, is done."
    return {"role": "assistant", "content": content}


def stamped(request: dict[str, Any]) -> bool:
    """Whether the first token is to tell when it left."""
    return any("STAMP" in (one.get("content") or "") for one in request["messages"] if one["role"] == "user")


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection, request after request."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = next(int(line.split(b":")[1]) for line in head.splitlines() if line.startswith(b"content-length"))
            await _answer(json.loads(await reader.readexactly(length)), writer)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # The mesh has closed it.
    finally:
        writer.close()


async def _answer(request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    message = reply(request, next(_numbers))
    finish = "tool_calls" if message.get("tool_calls") else "stop"
    common = {"id": "c1", "created": 1, "model": request["model"]}
    if not request.get("stream"):
        choice = {"index": 0, "message": message, "finish_reason": finish}
        body = json.dumps(common | {"object": "chat.completion", "choices": [choice], "usage": USAGE}).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        )
        await writer.drain()
        return
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    chunk = common | {"object": "chat.completion.chunk"}
    if stamped(request):
        await asyncio.sleep(PAUSE_S)
        message = message | {"content": f"{time.time_ns()} "}
    first = chunk | {"choices": [{"index": 0, "delta": message, "finish_reason": None}]}
    last = chunk | {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}
    pieces = [json.dumps(first), json.dumps(last), json.dumps(chunk | {"choices": [], "usage": USAGE}), "[DONE]"]
    for piece in pieces:
        raw = f"data: {piece}\n\n".encode()
        writer.write(b"%x\r\n%b\r\n" % (len(raw), raw))
    writer.write(b"0\r\n\r\n")
    await writer.drain()


async def main() -> None:
    """Serve until killed."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(130)

"""The world outside the mesh, in this process: a scripted model and an external counter.

In: HTTP requests of the real adapters (httpx transports). Out: answers and misbehaviour as the
chaos says; and a record of what really happened, by which the oracle judges.
"""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from tests.simulation.mesh.chaos import Chaos

KINDS = ("429", "500", "unreachable", "stall", "cut", "malformed", "error_200", "no_usage", "slow", "invented")
"""How a provider misbehaves."""
FIGURES = ("above", "far_above", "none", "late", "changed", "absurd")
"""How a provider tells usage that surprises: more than was reserved, nowhere, behind the end, first other figures than
at the end, or none that can be."""
NOT_CHARGED = ("429", "500", "unreachable")
"""What a provider never wants money for; for all else it may, also when nobody waits for it any more."""
_PART = re.compile(r"\[\[part kind=(\w+) id=([0-9a-f]{12})[^\]]*\]\]\n(.*?)\n\[\[/part \2\]\]", re.S)
_OBJECTIVE = re.compile(r"See to (\w+)")
_STEP = re.compile(r"(?:your part of|As part of|Note) (\w+)")
_CITE = re.compile(r"Cite the result of \w+ \(([^)]*)\) as \[#([0-9a-f]{12})\]")


@dataclass(slots=True)
class Call:
    """One request that reached the world: for which wish, and when, in seconds of the run. until_s: None while open."""

    what: str
    whose: str
    since_s: float
    until_s: float | None = None


class _Body(httpx.AsyncByteStream):
    def __init__(self, pieces: Sequence[bytes], broken: bool, pause_s: float) -> None:
        self._pieces, self._broken, self._pause_s = pieces, broken, pause_s
        self.call: Call | None = None
        self.on_heard: Callable[[], None] = lambda: None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            if self._pause_s:
                await asyncio.sleep(self._pause_s)
            yield piece
        if self._broken:
            raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")
        self.on_heard()

    async def aclose(self) -> None:
        """Read to its end, or cut."""
        _over(self.call)


def _over(call: Call | None) -> None:
    if call is not None and call.until_s is None:
        call.until_s = asyncio.get_running_loop().time()


def _whole(status: int, body: object, **headers: str) -> httpx.Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = {"content-type": "application/json", **{key.replace("_", "-"): value for key, value in headers.items()}}
    return httpx.Response(status, headers=head, stream=_Body([raw], False, 0.0))


class Model(httpx.AsyncBaseTransport):
    """An OpenAI-compatible provider that does what `SIM{...}` in its prompt says.

    calls: how many requests began to be served. tokens: what it wants money for, heard or not. made: every request.
    told: usage (input, output) as it was told. heard: those of them that were read to their end.
    surprising: those of them that are more than was expected.
    """

    def __init__(self, chaos: Chaos) -> None:
        self._chaos = chaos
        self.calls = 0
        self.tokens = 0
        self.made: list[Call] = []
        self.told: list[tuple[int, int]] = []
        self.heard: list[tuple[int, int]] = []
        self.surprising: set[tuple[int, int]] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One chat completion."""
        raw = await request.aread()
        call = Call("model", _whose(raw.decode()), asyncio.get_running_loop().time())
        self.made.append(call)
        try:
            response = await self._answer(request, raw)
        except BaseException:
            _over(call)
            raise
        assert isinstance(response.stream, _Body)
        response.stream.call = call
        return response

    async def _answer(self, request: httpx.Request, raw: bytes) -> httpx.Response:
        if self._chaos.pauses("pause_outside", "model"):
            await asyncio.sleep(0)
        self.calls += 1
        event = "model:" + hashlib.sha256(raw).hexdigest()[:12]
        how = self._chaos.strikes("provider", event)
        if how is None or KINDS[int(how * len(KINDS))] not in NOT_CHARGED:
            self.tokens += len(raw) // 5 + 20
        await asyncio.sleep(0.02)
        payload = json.loads(raw)
        message, finish, pace_s = _reply(payload)
        usage = {"prompt_tokens": len(raw) // 5, "completion_tokens": 20, "total_tokens": len(raw) // 5 + 20}
        if how is not None:
            return await self._misbehave(how, request, payload, message, finish, usage)
        surprise = self._chaos.strikes("figures", event)
        kind = FIGURES[int(surprise * len(FIGURES))] if surprise is not None else ""
        first, late = None, kind == "late"
        if kind in ("above", "far_above", "changed"):
            first = {**usage} if kind == "changed" else None
            usage = {name: count * (400 if kind == "far_above" else 7) for name, count in usage.items()}
        response = _response(
            payload,
            message,
            finish,
            {name: -count for name, count in usage.items()} if kind == "absurd" else None if kind == "none" else usage,
            pause_s=pace_s,
            first=first,
            late=late,
        )
        if kind not in ("none", "absurd") and (not late or payload.get("stream")):
            self._tell(response, usage, surprising=kind in ("above", "far_above", "changed"))
        return response

    def _tell(self, response: httpx.Response, usage: dict[str, int], *, surprising: bool) -> None:
        """Note what is told now, and what was read to its end when it was."""
        figures = usage["prompt_tokens"], usage["completion_tokens"]
        self.told.append(figures)
        if surprising:
            self.surprising.add(figures)

        def on_heard() -> None:
            self.heard.append(figures)

        assert isinstance(response.stream, _Body)
        response.stream.on_heard = on_heard

    async def _misbehave(
        self,
        how: float,
        request: httpx.Request,
        payload: dict[str, Any],
        message: dict[str, Any],
        finish: str,
        usage: dict[str, int],
    ) -> httpx.Response:
        kind = KINDS[int(how * len(KINDS))]
        quiet_s = request.extensions.get("timeout", {}).get("read") or 30.0
        match kind:
            case "429":
                return _whole(429, {"error": {"message": "slow down"}}, retry_after="1")
            case "500":
                return _whole(503, {"error": {"message": "overloaded"}})
            case "unreachable":
                self.calls -= 1
                raise httpx.ConnectError("connection refused")
            case "stall":
                await asyncio.sleep(quiet_s)
                raise httpx.ReadTimeout("silent")
            case "malformed":
                return _whole(200, b'{"choices": [{')
            case "error_200":
                return _whole(200, {"error": {"message": "internal", "type": "server_error"}})
            case "invented":
                call = {"id": "call_x", "type": "function", "function": {"name": "launch_rockets", "arguments": "{}"}}
                message, finish = {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"
        response = _response(
            payload,
            message,
            finish,
            None if kind == "no_usage" else usage,
            cut=kind == "cut",
            pause_s=3.0 if kind == "slow" else 0.0,
        )
        if kind not in ("cut", "no_usage"):
            self._tell(response, usage, surprising=False)
        return response


def _response(
    payload: dict[str, Any],
    message: dict[str, Any],
    finish: str,
    usage: dict[str, int] | None,
    *,
    cut: bool = False,
    pause_s: float = 0.0,
    first: dict[str, int] | None = None,
    late: bool = False,
) -> httpx.Response:
    """first: usage that is told before the answer; late: usage is told behind the end, of a stream alone."""
    head = {"id": "sim", "model": payload["model"], "created": 0}
    if not payload.get("stream"):
        whole: dict[str, Any] = {
            **head,
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        }
        if usage and not late:
            whole["usage"] = usage
        raw = json.dumps(whole).encode()
        return httpx.Response(
            200,
            headers={"content-type": "application/json"},
            stream=_Body([raw[: len(raw) // 2]] if cut else [raw], cut, pause_s),
        )
    events: list[dict[str, Any]] = []
    if first:
        events.append({"choices": [{"index": 0, "delta": {"content": ""}}], "usage": first})
    text = message.get("content") or ""
    for start in range(0, len(text), 200):
        events.append({"choices": [{"index": 0, "delta": {"content": text[start : start + 200]}}]})
    for index, call in enumerate(message.get("tool_calls", ())):
        events.append({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": index, **call}]}}]})
    if cut:
        events = events[: max(1, len(events) // 2)]
    else:
        events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        if usage and not late:
            events.append({"choices": [], "usage": usage})
    pieces = [f"data: {json.dumps({**head, **one})}\n\n".encode() for one in events]
    if not cut:
        pieces.append(b"data: [DONE]\n\n")
    if usage and late:
        pieces.append(f"data: {json.dumps({**head, 'choices': [], 'usage': usage})}\n\n".encode())
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=_Body(pieces, cut, pause_s))


def _whose(text: str) -> str:
    """The wish that a request is about: by the objective in it, else by the step's instruction."""
    found = _OBJECTIVE.search(text) or _STEP.search(text)
    return found[1] if found else ""


def _reply(payload: dict[str, Any]) -> tuple[dict[str, Any], str, float]:
    """The message, why it ends, and how long each piece of it takes (s)."""
    form = (payload.get("response_format") or {}).get("json_schema", {}).get("name", "")
    user = next(one["content"] for one in payload["messages"] if one["role"] == "user")
    parts = _PART.findall(user)
    texts = {kind: text for kind, _, text in parts}
    if form == "plan":
        wanted = _sim(texts.get("objective", "")) or {}
        anew = wanted.get("again") if "the earlier plan failed" in texts.get("notes", "") else None
        alone = {
            "id": "a",
            "title": "a",
            "instruction": "Answer.",
            "tools": [],
            "inputs": [],
            "acceptance": "There is an answer.",
        }
        steps = anew or wanted.get("plan") or [alone]
        told = ("id", "title", "instruction", "tools", "inputs", "acceptance")
        text = json.dumps({"steps": [{key: one[key] for key in told} for one in steps]})
        return {"role": "assistant", "content": text}, "stop", 0.0
    if form == "verdict":
        reject = (_sim(texts.get("step", "")) or {}).get("reject", 0)
        again = "Another try" in texts.get("answer", "")
        bad = reject > 1 or (reject == 1 and not again)
        said = {
            "verdict": "reject" if bad else "accept",
            "score": 0.1 if bad else 0.9,
            "reasons": ["it does not say enough" if bad else "it says what was done"],
            "answered": "yes",
        }
        return {"role": "assistant", "content": json.dumps(said)}, "stop", 0.0
    message, finish = _work(payload["messages"], parts, texts)
    return message, finish, (_sim(texts.get("step", "")) or {}).get("pace_s", 0.0)


def _work(
    messages: list[dict[str, Any]], parts: list[tuple[str, str, str]], texts: dict[str, str]
) -> tuple[dict[str, Any], str]:
    wants = _sim(texts.get("step", "")) or {}
    calls = wants.get("calls", [])
    made = [call["function"]["name"] for one in messages for call in one.get("tool_calls") or ()]
    made = [name for name in made if name != "launch_rockets"]
    batch = calls[len(made) : len(made) + 1] if wants.get("serial") else calls[len(made) :]
    if ring := wants.get("loop"):
        batch = [ring[len(made) % len(ring)]]
    if batch:
        asked = [
            {
                "id": f"call_{len(made) + index}",
                "type": "function",
                "function": {"name": tool, "arguments": json.dumps(arguments)},
            }
            for index, (tool, arguments) in enumerate(batch)
        ]
        return {"role": "assistant", "content": None, "tool_calls": asked}, "tool_calls"
    markers = dict(_CITE.findall("\n".join(one["content"] or "" for one in messages if one["role"] == "user")))
    said = []
    for one in messages:
        if one["role"] != "tool":
            continue
        marker = markers.get(one["tool_call_id"])
        passage = _PART.search(one["content"] or "")
        if marker:
            said.append(f"{one['content'].strip()} [#{marker}].")
        elif passage and passage.group(1) == "passage":
            said.append(f"{passage.group(3).splitlines()[-1].strip().rstrip('.')} [#{passage.group(2)}].")
    said += [
        f"{text.splitlines()[0].strip().rstrip('.')} [#{marker}]." for kind, marker, text in parts if kind == "input"
    ]
    if "notes" in texts:
        said.insert(0, "Another try.")
    return {"role": "assistant", "content": "\n".join(said) or "It is done."}, "stop"


def _sim(text: str) -> dict[str, Any] | None:
    at = text.find("SIM{")
    if at < 0:
        return None
    wants: dict[str, Any] = json.JSONDecoder().raw_decode(text[at + 3 :])[0]
    return wants


class Counter(httpx.AsyncBaseTransport):
    """`POST /increment`: what really happened, with and without idempotency keys."""

    def __init__(self, chaos: Chaos) -> None:
        self._chaos = chaos
        self.counts: dict[str, int] = {}
        self.keys: dict[str, dict[str, Any]] = {}
        self.made: list[Call] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One increment."""
        asked = json.loads(await request.aread())
        if self._chaos.pauses("pause_outside", f"counter:{asked['name']}"):
            await asyncio.sleep(0)
        whose = asked["name"].partition(".")[0]
        self.made.append(Call("counter", whose, asyncio.get_running_loop().time()))
        key = request.headers.get("idempotency-key", "")
        how = self._chaos.strikes("outside", f"counter:{asked['name']}")
        kinds = ("drop_before", "drop_after", "error_before", "error_after", "stall_before", "stall_after")
        kind = kinds[int(how * len(kinds))] if how is not None else ""
        await asyncio.sleep(0.005)
        if kind == "drop_before":
            raise httpx.ReadError("connection reset")
        if kind == "error_before":
            return _whole(503, {})
        if kind == "stall_before":
            await asyncio.sleep(20)
        answer = self._count(asked, key)
        await asyncio.sleep(0.005)
        if kind == "drop_after":
            raise httpx.ReadError("connection reset")
        if kind == "error_after":
            return _whole(503, {})
        if kind == "stall_after":
            await asyncio.sleep(20)
        return _whole(200, answer)

    def _count(self, asked: dict[str, Any], key: str) -> dict[str, Any]:
        if key and key in self.keys:
            return self.keys[key]
        self.counts[asked["name"]] = self.counts.get(asked["name"], 0) + asked["amount"]
        answer = {"name": asked["name"], "value": self.counts[asked["name"]], "repeat": False}
        if key:
            self.keys[key] = answer
        return answer

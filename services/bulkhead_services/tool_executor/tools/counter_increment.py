"""`counter_increment(name, amount)`: adds to an external counter that honours idempotency keys. For tests."""

import json

from bulkhead.tools.api import Arguments, Call, Done, Effect, Failed, Unanswered

_NOT_DONE = frozenset({400, 401, 403, 404, 405, 413, 422, 429})


async def run(arguments: Arguments, call: Call) -> Done | Failed:
    """`counter NAME = VALUE`."""
    return await post_increment(arguments, call, {"Idempotency-Key": call.key})


async def post_increment(arguments: Arguments, call: Call, headers: dict[str, str]) -> Done | Failed:
    """One POST; says whether the count may have changed when it fails."""
    body = {"name": arguments["name"], "amount": arguments.get("amount", 1)}
    answer = await call.world.post_json(call.counter_url.rstrip("/") + "/increment", body, headers)
    if isinstance(answer, Unanswered):
        effect: Effect = "unknown" if answer.sent else "none"
        message = f"the counter did not answer: {answer.reason}"
        return Failed(answer.code, message, "is it running?", transient=True, effect=effect)
    if answer.status == 200:
        try:
            value = json.loads(answer.body)["value"]
        except (ValueError, KeyError, TypeError):
            return Failed("bad_answer", "the counter answered something else", "look at the counter", effect="unknown")
        return Done(f"counter {arguments['name']} = {value}")
    certain = answer.status in _NOT_DONE
    message, transient = f"the counter answered {answer.status}", not certain or answer.status == 429
    effect = "none" if certain else "unknown"
    return Failed("http_status", message, "look at the counter", transient=transient, effect=effect)

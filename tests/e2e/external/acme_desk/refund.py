"""`refund(order, amount_cents)`: the desk's API pays once under an Idempotency-Key."""

from bulkhead.tools.packs import Arguments, Call, Done, Failed, Unanswered


async def run(arguments: Arguments, call: Call) -> Done | Failed:
    """`refund N of order O: EUR x`."""
    url = call.settings["desk_url"].rstrip("/") + "/refund"
    body = {"order": arguments["order"], "amount_cents": arguments["amount_cents"]}
    answer = await call.world.post_json(url, body, {"Idempotency-Key": call.key})
    if isinstance(answer, Unanswered):
        return Failed(
            "unreachable",
            f"the desk did not answer: {answer.reason}",
            "is it running?",
            transient=True,
            effect="unknown" if answer.sent else "none",
        )
    if answer.status != 200:
        return Failed(
            "http_status",
            f"the desk answered {answer.status}",
            "look at the desk",
            transient=answer.status >= 500,
            effect="unknown",
        )
    return Done(f"Refunded order {body['order']}: EUR {body['amount_cents'] / 100:.2f}.")

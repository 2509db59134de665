"""The facts that budget states about one reservation and one task. Pure.

In: an ask with the terms that it is held on; a balance. Out: the bodies of `Reserved` and `TaskCharged`.
"""

from bulkhead_contracts.budget import Charge, Reserved, ReserveRequested, TaskCharged, id_ahead
from bulkhead_contracts.result import Usage
from bulkhead_services.budget.ledger import model
from bulkhead_services.budget.ledger.account_cache import CachedScopes
from bulkhead_services.budget.ledger.accounts import fact_scopes
from bulkhead_services.budget.ledger.model import Balance, ReservationHeld


def cause_of(reservation_id: str, epoch: str) -> str:
    """A fact's cause: the reservation, and the ledger that held it when the fact was written."""
    return f"{reservation_id}@{epoch.partition(' ')[0]}"


def written_under(cause: str) -> str:
    """The ledger of a fact's cause; "" of a fact that an earlier program wrote."""
    return cause.partition("@")[2]


def ask_ahead(body: ReserveRequested, number: int) -> ReserveRequested:
    """The ask that stands for the number-th call (from 1) that follows another."""
    reservation_id, row = id_ahead(body.reservation_id, number), body.ahead[number - 1]
    return ReserveRequested(reservation_id=reservation_id, call_id=reservation_id, step_id=body.step_id, **dict(row))


def reserved_fact(service: str, body: ReserveRequested, held: ReservationHeld) -> Reserved:
    """The fact that stands in the journal before the answer."""
    held_scopes = held.scopes
    scopes, more_scopes = held_scopes.fact_fields if isinstance(held_scopes, CachedScopes) else fact_scopes(held_scopes)
    return Reserved(
        reservation_id=body.reservation_id,
        call_id=body.call_id,
        step_id=body.step_id,
        service=service,
        resource=body.resource,
        amount=body.worst_case,
        scopes=scopes,
        more_scopes=more_scopes,
        price_digest=body.price_digest,
        reserved_unix_ms=held.at_unix_ms,
        prompt=body.prompt,
    )


def charged_fact(balance: Balance, measured: Usage) -> TaskCharged:
    """The cost of a task by now. measured: what providers told of its calls; the rest of its charge is estimated."""
    spent, tokens = model.amount_of(balance.spent), measured.input_tokens + measured.output_tokens
    estimated = {
        "estimated_tokens": max(0, spent.tokens - tokens),
        "estimated_usd_micros": max(0, spent.cost_usd_micros - measured.cost_usd_micros),
    }
    return TaskCharged(
        charged=Charge(**spent.model_dump(), **estimated),
        held=model.amount_of(balance.reserved),
        settled_calls=balance.settled,
    )

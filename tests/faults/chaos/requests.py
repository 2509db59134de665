"""Requests of clients, each asked again until it is served, and all that its client was told meanwhile.

In: an attempt, as a function that may be repeated. Out: a `ClientRequest` with one `Attempt` for each try.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import anthropic
import httpx
import openai

from bulkhead.client import Refused, Unreachable

Outcome = Literal["served", "refused", "lost", "silent", "wrong"]
WriteStanding = Literal["open", "acknowledged", "uncertain", "forbidden"]
PAUSE_S, MAX_PAUSE_S = 0.5, 15.0


class NotServed(Exception):
    """A client was told why it has no answer. again_s: when to ask again; is_final: this request has no other answer,
    and a new one has to be made."""

    def __init__(self, code: str, text: str, again_s: float = 0.0, *, is_final: bool = False) -> None:
        super().__init__(f"{code}: {text}")
        self.code, self.text, self.again_s, self.is_final = code, text, again_s, is_final


class WrongAnswer(Exception):
    """An answer that no fault excuses."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try, in seconds from the beginning of the run, and what its client was told."""

    began_s: float
    ended_s: float
    outcome: Outcome
    code: str = ""
    text: str = ""


@dataclass(slots=True)
class ClientRequest:
    """A request of one client. task: under which the mesh has it, once that is known. writes: what its client knows of
    each write, by the name under which it is made. calls: tools and arguments by the same names. round: grows with each
    final refusal, after which the client asks anew. is_late: it began after the last fault."""

    kind: str
    name: str
    task: str = ""
    tenant: str = ""
    fronts: tuple[str, ...] = ()
    writes: dict[str, WriteStanding] = field(default_factory=dict)
    calls: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    round: int = 0
    is_late: bool = False
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def is_served(self) -> bool:
        """True when it has its answer."""
        return any(attempt.outcome == "served" for attempt in self.attempts)

    @property
    def took_s(self) -> float:
        """Time from its first try to its end."""
        return self.attempts[-1].ended_s - self.attempts[0].began_s if self.attempts else 0.0

    @property
    def key(self) -> str:
        """The idempotency key of the round."""
        return f"{self.name}-{self.round}"


async def pursue_request(
    request: ClientRequest, ask: Callable[[], Awaitable[None]], clock: Callable[[], float], patience_s: float
) -> None:
    """Ask until the request is served, its answer is wrong, or patience_s have passed since a try began without end."""
    give_up_s, pause_s = clock() + 3 * patience_s, PAUSE_S
    while True:
        began_s, final, again_s = clock(), False, 0.0
        code = text = ""
        try:
            async with asyncio.timeout(patience_s):
                await ask()
            outcome: Outcome = "served"
        except NotServed as refusal:
            outcome, code, text = "refused", refusal.code, refusal.text
            final, again_s = refusal.is_final, refusal.again_s
        except Refused as error:
            outcome, code, text, again_s = "refused", error.code, str(error), error.retry_after_s
        except (openai.APIStatusError, anthropic.APIStatusError) as error:
            outcome, code, text = "refused", _error_code(error.body), str(error)
            again_s = float(error.response.headers.get("retry-after", 0))
            # The mesh keeps what became of a call under its key: another answer needs another call.
            final = error.response.headers.get("x-should-retry") == "false"
        except (openai.APIConnectionError, anthropic.APIConnectionError, httpx.TransportError, Unreachable) as error:
            outcome, text = "lost", f"{type(error).__name__}: {error}"
        except (openai.APIError, anthropic.APIError) as error:
            # An error in the middle of a stream.
            outcome, code, text, final = "refused", _error_code(error.body), str(error), True
        except TimeoutError:
            outcome, text = "silent", f"no answer within {patience_s:g} s"
        except WrongAnswer as error:
            outcome, text = "wrong", str(error)
        request.attempts.append(Attempt(began_s, clock(), outcome, code, text))
        if outcome in ("served", "wrong") or clock() > give_up_s:
            return
        request.round += final
        await asyncio.sleep(max(min(again_s, MAX_PAUSE_S), pause_s))
        pause_s = min(MAX_PAUSE_S / 3, 1.5 * pause_s)


def _error_code(body: object) -> str:
    """Code of an error body, of either vendor."""
    error = body.get("error", body) if isinstance(body, dict) else None
    return str(error.get("code") or error.get("type") or "") if isinstance(error, dict) else ""

"""Crash points: places where a test can make a service die at once.

In: `BULKHEAD_CRASH_AT=worker:after_publish:3` (the process of `worker` kills itself when it passes that point for the
third time), read once by the settings and armed by main; or `BULKHEAD_CRASH_AT=@/path`: at the point that this file
names, whenever it exists. Out: SIGKILL, nothing else. Off by default; then a point costs one look at a name.
"""

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bulkhead.telemetry.log import Log

log = Log("crash")

FILE_PREFIX = "@"
"""What the name of a file begins with."""
POINT_MEANINGS: Mapping[str, str] = {
    "after_receive": "a message of the inbox was delivered; nothing was done",
    "before_decide": "the fold stands below the message",
    "between_publishes": "the broker has some of the messages that a decision brought, and not all",
    "before_publish": "a message is about to be sent to an inbox (a timer to be set)",
    "after_publish": "the broker has acknowledged it",
    "after_verify": "the request's grant is verified; no outcome was looked up",
    "after_claim": "the key of a write that may not be repeated is claimed",
    "after_reserve": "budget has said yes; nothing was called",
    "after_act": "the effect has happened, and nothing stored says so",
    "after_reply": "the reply is stored: the record of the outcome, and what it settles in it",
    "after_charge": "settlements in replies are charged; how far they were read is not noted",
    "after_request": "a caller waits for a reply; nothing was done",
    "before_answer": "the request is done, and the reply was not sent",
    "before_ack": "all that follows from a message is durable, and the broker will deliver it again",
    "after_ack": "the acknowledgement was handed to the connection; the broker may have it or not",
}
"""Every point, and what is true where it lies."""

_ON_ARRIVAL, _ON_ACK = ("after_receive",), ("before_ack", "after_ack")
_ON_PUBLISH = ("before_publish", "after_publish")
_ON_DECISION = (*_ON_ARRIVAL, "before_decide", *_ON_PUBLISH, *_ON_ACK)
_ON_REQUEST = ("after_request", "before_answer")
_ON_ACT = ("after_reserve", "after_act", *_ON_PUBLISH, "after_reply")
POINTS: Mapping[str, tuple[str, ...]] = {
    "planner": (*_ON_DECISION, "between_publishes"),
    "worker": (*_ON_DECISION, "between_publishes"),
    # It says one thing at a time, but where a halt meets it: the pause, and a timer.
    "checker": (*_ON_DECISION, "between_publishes"),
    "model_gateway": (*_ON_ARRIVAL, "after_verify", *_ON_ACT, *_ON_ACK),
    "tool_executor": (*_ON_ARRIVAL, "after_verify", "after_claim", *_ON_ACT, *_ON_ACK),
    # A search by words costs nothing: no reservation, nothing to settle.
    "rag": (*_ON_ARRIVAL, "after_verify", "after_act", *_ON_PUBLISH, "after_reply", *_ON_ACK),
    "gateway": (*_ON_ARRIVAL, *_ON_PUBLISH, *_ON_ACK),
    # Its inbox has its own mark, at its start, and nothing of a task that succeeds.
    "budget": (*_ON_ARRIVAL, *_ON_REQUEST, *_ON_PUBLISH, "after_charge", *_ON_ACK),
    "signer": _ON_REQUEST,
    # Such a task passes them by: they serve people who change prompts, and tasks of outside agents.
    "registry": (),
    "doors": (),
}
"""What each service passes in a task that succeeds, halted meanwhile or not. tests/faults/test_standing.py holds that
it passes each of them, tests/simulation that it passes no other."""


class UnknownPoint(ValueError):
    """A point that no service has; the message lists those that exist."""


@dataclass(slots=True)
class CrashTrigger:
    """Die when `service` passes `point` for the `passes_left`th time from now."""

    service: str
    point: str
    passes_left: int = 1

    def __str__(self) -> str:
        return f"{self.service}:{self.point}:{self.passes_left}"

    def is_due(self, point: str) -> bool:
        """Call at every point that is passed."""
        self.passes_left -= self.point == point
        return not self.passes_left


@dataclass(frozen=True, slots=True)
class CrashFile:
    """Die where a file says, which may appear while the process runs. The dying process removes it: its successor
    lives."""

    service: str
    path: Path

    def is_due(self, point: str) -> bool:
        """Call at every point that is passed. Raises UnknownPoint when the file names none."""
        try:
            trigger = parse(self.path.read_text())
        except FileNotFoundError:
            return False
        if trigger is None or (trigger.service, trigger.point) != (self.service, point):
            return False
        if not trigger.is_due(point):
            self.path.write_text(str(trigger))
            return False
        self.path.unlink()
        return True


def parse(text: str) -> CrashTrigger | None:
    """`service:point` or `service:point:n`; None for "" and for the name of a file. Raises UnknownPoint."""
    if not text or text.startswith(FILE_PREFIX):
        return None
    service, _, point_and_count = text.partition(":")
    point, _, nth = point_and_count.partition(":")
    if service not in POINTS:
        raise UnknownPoint(
            f"{text!r}: there is no service {service!r}; write SERVICE:POINT:N, with one of {', '.join(POINTS)}"
        )
    if point not in POINTS[service]:
        raise UnknownPoint(f"{text!r}: {service} has no crash point {point!r}; it has {', '.join(POINTS[service])}")
    if nth and not (nth.isascii() and nth.isdigit() and int(nth)):
        raise UnknownPoint(f"{text!r}: {nth!r} is no number of times from 1 on; write {service}:{point}:1")
    return CrashTrigger(service, point, int(nth or 1))


_armed: CrashTrigger | CrashFile | None = None


def arm_crash(service: str, text: str) -> None:
    """Let this process, which is one of `service`, die where the text says, or the file that it names; "" and other
    services' points do nothing.

    Raises UnknownPoint.
    """
    global _armed
    if text.startswith(FILE_PREFIX):
        _armed = CrashFile(service, Path(text.removeprefix(FILE_PREFIX)))
        return
    trigger = parse(text)
    _armed = trigger if trigger is not None and trigger.service == service else None


def pass_point(point: str) -> None:
    """This process is at a point now."""
    if _armed is not None and _armed.is_due(point):
        log.warning("crash_point", point=point)
        os.kill(os.getpid(), signal.SIGKILL)

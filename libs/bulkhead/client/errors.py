"""Exceptions of the client. MeshError is the base of Unfit, Closed, Unreachable and Refused."""

from collections.abc import Mapping


class MeshError(Exception):
    """Base: says what happened; `hint` says what to do next."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        if hint:
            self.add_note(f"what to do: {hint}")  # Stands in tracebacks, which do not show `hint`.


class Unfit(MeshError, ValueError):
    """An argument is not valid: a wrong type, a value out of bounds, an unknown name. Nothing was sent."""


class Closed(MeshError):
    """This client is not open (any more). Nothing was sent."""


class Unreachable(MeshError):
    """Lack of an answer, or of one in time. The outcome is unknown: repeat with the same idempotency key."""


class Refused(MeshError):
    """The mesh said no: RFC 9457 problem details. retry_after_s: when to ask again, 0 if it did not say."""

    def __init__(self, status: int, problem: Mapping[str, object], retry_after_s: float = 0.0) -> None:
        super().__init__(
            str(problem.get("detail") or problem.get("title") or f"HTTP {status}"), str(problem.get("hint", ""))
        )
        self.status = status
        self.code = str(problem.get("code", ""))
        self.problem = dict(problem)
        self.retry_after_s = retry_after_s

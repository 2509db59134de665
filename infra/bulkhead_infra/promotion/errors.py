"""Errors of promotion: what happened, why, and what to do next; as a sentence and as JSON.

`code` is stable: scripts compare it. Exit codes: 1 something could not be done, 2 wrong usage, 3 the registry was not
reached, 4 a check refused.
"""

from collections.abc import Mapping

FAILED, WRONG_USAGE, UNREACHABLE, REFUSED = 1, 2, 3, 4


class PromotionError(Exception):
    """what happened, why, and what to do next."""

    exit_code = FAILED

    def __init__(self, code: str, what: str, why: str, then: str) -> None:
        super().__init__(f"{what}: {why}. {then}.")
        self.code, self.what, self.why, self.then = code, what, why, then

    def document(self) -> Mapping[str, str]:
        """As JSON has it."""
        return {"code": self.code, "what": self.what, "why": self.why, "next": self.then}


class WrongUsage(PromotionError):
    """Something that was given does not fit."""

    exit_code = WRONG_USAGE


class RegistryUnreachable(PromotionError):
    """The registry does not answer, or lets nobody in."""

    exit_code = UNREACHABLE


class Refused(PromotionError):
    """A check does not let the release through."""

    exit_code = REFUSED

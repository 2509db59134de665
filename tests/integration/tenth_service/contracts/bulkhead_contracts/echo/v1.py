"""The messages of a service that gives back what it is told."""

from typing import ClassVar

from ..result import Failure
from ..types import Body, Reason, Token


class EchoRequested(Body):
    """A text to give back."""

    TYPE: ClassVar[str] = "mesh.echo.requested"

    call_id: Token
    text: Reason


class EchoReplied(Body):
    """The text of the request, or why there is none."""

    TYPE: ClassVar[str] = "mesh.echo.replied"

    call_id: Token
    text: str = ""
    failure: Failure | None = None

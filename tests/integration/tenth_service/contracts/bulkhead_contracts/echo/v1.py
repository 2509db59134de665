"""The messages of a service that gives back what it is told."""

from ..result import Failure
from ..settlement import DoerReply
from ..types import Body, Reason, Token


class EchoRequested(Body, type="mesh.echo.requested"):
    """A text to give back."""

    call_id: Token
    text: Reason


class EchoReplied(Body, DoerReply, type="mesh.echo.replied"):
    """The text of the request, or why there is none."""

    call_id: Token
    text: str = ""
    failure: Failure | None = None

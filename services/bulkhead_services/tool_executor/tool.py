"""What a tool is to write, see `bulkhead.tools.api`: the same for the tools of this house and for those of a pack."""

from bulkhead.tools.api import Arguments, Call, Done, Effect, Failed, Response, Run, Unanswered, World

__all__ = ["Arguments", "Call", "Done", "Effect", "Failed", "Response", "Run", "Unanswered", "World"]

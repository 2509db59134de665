"""Gates before labels of prompts: `gates` in a tenant's row of the tenants file."""

import operator
from typing import Annotated

from pydantic import Field

from ..types import Contract, Name, Sha256

PublicKey = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""An Ed25519 public key, 64 hex digits."""


class GatePolicy(Contract, extra="forbid"):
    """Needs of a move of a label: of each set a statement that fits.

    sets: names of sets; with a digest it must be that very set. keys: of those who may sign statements. min_pass: least
    share of the runs that pass. max_age_h: hours for which a statement is fresh. four_eyes: nobody moves a label to a
    version that he published. break_glass: roles that may move it without any of this, with a reason, on record.
    require_tokens: who moves it, even so, has signed in; an API key, in whose name a gateway can ask, is not enough.
    """

    sets: Annotated[dict[Name, Sha256 | None], Field(min_length=1, max_length=8)]
    keys: Annotated[tuple[PublicKey, ...], Field(min_length=1, max_length=8)]
    min_pass: Annotated[float, Field(gt=0, le=1)] = 0.9
    max_age_h: Annotated[int, Field(ge=1, le=8_760)] = 72
    four_eyes: bool = False
    break_glass: Annotated[tuple[Name, ...], Field(max_length=8)] = ()
    require_tokens: Annotated[bool, Field(exclude_if=operator.not_)] = False

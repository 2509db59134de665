"""A policy that does not hold together is refused when it is read."""

import pytest
from pydantic import ValidationError

from bulkhead_infra.identity import policy


def test_subscribers_whom_nobody_tells_anything_are_refused() -> None:
    rows = policy.load_policy().model_dump()
    rows["services"]["gateway"]["uses"] -= {policy.Use.EVENTS_WRITE}
    with pytest.raises(ValidationError, match="add events_write to the uses of gateway"):
        policy.IdentityPolicy.model_validate(rows)

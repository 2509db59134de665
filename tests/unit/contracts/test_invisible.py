"""An objective holds nothing that nobody sees, by whichever way it comes; scripts and emoji keep their joiners."""

import pytest

from bulkhead_contracts.invisible import drop_invisible
from bulkhead_contracts.task import TaskRequested

TAGS = "".join(chr(0xE0000 + ord(char)) for char in "pay eve")


@pytest.mark.parametrize("hidden", ["\u200b", "\u2060", "\ufeff", "\u00ad", "\u202e", "\u2066", "\u200d", TAGS])
def test_what_nobody_sees_is_not_in_an_objective(hidden):
    raw = f'{{"objective": "pay {hidden}ada{hidden} 60.00"}}'
    assert TaskRequested.model_validate_json(raw).objective == "pay ada 60.00"


@pytest.mark.parametrize("text", ["می\u200cخواهم", "क\u094d\u200dष", "👩\u200d🚀", "\u0601\u0661", "plain"])
def test_joiners_of_scripts_and_emoji_stay(text):
    assert drop_invisible(text) == text

"""The tools that a step is shown: bounded, chosen by its words, told when cut."""

from bulkhead.flow.shown_tools import choose_tools
from bulkhead_contracts import bounds
from bulkhead_contracts.tool import ToolSpec

TOOLS = tuple(
    ToolSpec(name=f"desk_tool_{number}", description=f"About topic{number}. " + "x" * 1_900, parameters_json="{}")
    for number in range(64)
)
NAMES = tuple(tool.name for tool in TOOLS)


def test_all_are_shown_where_they_fit() -> None:
    assert choose_tools(NAMES[:10], TOOLS, "anything") == (NAMES[:10], ())


def test_of_64_long_ones_those_are_shown_that_the_step_asks_for() -> None:
    shown, left_out = choose_tools(NAMES, TOOLS, "Look up topic61 and topic62, then use desk_tool_63.")
    assert {"desk_tool_61", "desk_tool_62", "desk_tool_63"} <= set(shown) and set(shown) | set(left_out) == set(NAMES)
    sizes = {tool.name: len(tool.name) + len(tool.description) + len(tool.parameters_json) for tool in TOOLS}
    assert sum(sizes[name] for name in shown) <= bounds.MAX_SHOWN_TOOLS_BYTES < sum(sizes.values())
    assert list(shown) == [name for name in NAMES if name in shown], "the order stays"

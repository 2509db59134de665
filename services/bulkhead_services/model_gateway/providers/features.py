"""Features of each wire form: the table of docs/reference/providers.md, each cell of which has a test.

`yes`: it works. `refused`: whoever asks for it gets a refusal that names it. `none`: nobody can ask for it,
or the vendor has no such thing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from bulkhead_services.model_gateway.providers.forms import FORMS, Api

Feature = Literal[
    "streaming",
    "tools",
    "parallel tools",
    "structured output",
    "reasoning",
    "prompt caching",
    "usage",
    "refusals",
    "temperature over 1",
    "seeds",
    "images",
]
Offer = Literal["yes", "refused", "none"]


@dataclass(frozen=True, slots=True)
class FeatureCell:
    """Offer of one form for one feature. how: in a few words, where there is more to say."""

    offer: Offer
    how: str = ""


def _same_for_all(how: str = "", offer: Offer = "yes", **others: FeatureCell) -> Mapping[Api, FeatureCell]:
    """The same for every form but those that are named, with `_` for `-`."""
    cells = {api: others.get(api.replace("-", "_"), FeatureCell(offer, how)) for api in FORMS}
    assert {name.replace("_", "-") for name in others} <= {*FORMS}
    return cells


FEATURES: Mapping[Feature, Mapping[Api, FeatureCell]] = {
    "streaming": _same_for_all(),
    "tools": _same_for_all(),
    "parallel tools": _same_for_all(),
    "structured output": _same_for_all(
        "`response_format`",
        openai_responses=FeatureCell("yes", "`text.format`"),
        anthropic=FeatureCell("yes", "`output_config`"),
        gemini=FeatureCell("yes", "`responseJsonSchema`"),
    ),
    "reasoning": _same_for_all(),
    "prompt caching": _same_for_all(
        "by itself", anthropic=FeatureCell("yes", "system and turns marked"), ollama=FeatureCell("none", "not told")
    ),
    "usage": _same_for_all(),
    "refusals": _same_for_all(
        "`refusal`",
        anthropic=FeatureCell("yes", "`stop_reason`"),
        gemini=FeatureCell("yes", "`blockReason`, `SAFETY`…"),
        ollama=FeatureCell("none", "plain text"),
    ),
    "temperature over 1": _same_for_all(anthropic=FeatureCell("refused", "by the settings")),
    "seeds": _same_for_all(
        openai_responses=FeatureCell("refused", "by the settings"), anthropic=FeatureCell("refused", "by the settings")
    ),
    "images": _same_for_all(offer="none"),
}
assert tuple(FEATURES) == get_args(Feature)

NOTES = """
`yes`: it works. `refused`: the refusal names it. `none`: nobody can ask for it, or the vendor has no such thing. A test
holds each cell to what the form sends and reads.

- A part of a prompt holds text. An image or sound in an answer is left out, and the answer says so (`completeness`).
- Thoughts never reach an answer, and are paid as output.
- A refusal fails the call with `model_refused`, an answer that a filter withholds with `content_filter`.
- Anthropic's models since Opus 4.7 take no temperature: they refuse it by name, at the call.
"""


def render_page() -> str:
    """The table as Markdown."""
    lines = [f"| feature | {' | '.join(f'`{api}`' for api in FORMS)} |", "| --- " * (len(FORMS) + 1) + "|"]
    for feature, cells in FEATURES.items():
        texts = (f"{cell.offer} ({cell.how})" if cell.how else cell.offer for cell in cells.values())
        lines.append(f"| {feature} | {' | '.join(texts)} |")
    return "\n".join(lines) + "\n" + NOTES

"""Thinking that stands in a model's text, as reasoning models write it, and what else is no part of an answer. Pure.

In: a reply's text. Out: the text without `<think>` blocks (and their kin), special tokens and a wrapper around the
whole. Each character is looked at a bounded number of times, whatever the text is.
"""

import re

_NAMES = (
    r"think|thinking|thoughts?|reasoning|reflection|scratchpad|ant_?thinking|antml:thinking|seed:think"
    r"|internal_monologue|chain_of_thought"
)
_TOKEN = re.compile(
    rf"""
      (?P<fence> ^[ \t]{{0,3}}(?:```|~~~) )
    | (?P<final> (?:<\|start\|>assistant)?<\|channel\|>final[^<\n]{{0,80}}<\|message\|>
               | <\|START_RESPONSE\|> | <\|begin_of_solution\|> )
    | (?P<close> </(?:{_NAMES})> | \[/THINK\] | ◁/think▷ | <\|end_of_thought\|> | <\|END_THINKING\|> | <channel\|> )
    | (?P<open>  <(?:{_NAMES})(?:\s[^<>]{{0,80}})?> | \[THINK\] | ◁think▷ | <\|begin_of_thought\|>
               | <\|START_THINKING\|> | <\|channel\|>(?:analysis|commentary)[^<\n]{{0,80}}<\|message\|>
               | <\|channel>thought )
    """,
    re.I | re.M | re.X,
)
_PARTIAL = re.compile(
    rf"(?:<(?:[/|]?[a-z_:|]*|(?:{_NAMES})\s[^<>]{{0,80}}|\|channel\|>[^<\n]{{0,80}}(?:<[|a-z]*)?"
    r"|\|start\|>[a-z]*(?:<[|a-z]*(?:>[^<\n]{0,80}(?:<[|a-z]*)?)?)?)|\[/?[A-Z]*|◁/?[a-z]*|`{1,2})\Z",
    re.I,
)
"""What may become one of these with the next characters."""
_ENDS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|end|>",
    "<|return|>",
    "<|end_of_solution|>",
    "<|END_RESPONSE|>",
    "<end_of_turn>",
    "<eos>",
    "</s>",
)
_BEGINS = ("<|im_start|>assistant", "<|start|>assistant", "<|assistant|>", "<s>")
_WRAPPERS = ("answer", "final_answer", "response", "output")
_MOST_TOKENS = 8
"""Special tokens that are taken from either end."""
MAX_TOKEN_CHARS = 256
"""What is held back of live text while it may be the beginning of a block."""


def strip_thinking(text: str) -> str:
    """The answer without what was thought; the text itself where nothing of it is a thought.

    A block that is never closed lasts to the end. A closing tag without a block ends thoughts that began with the
    text: chat templates put the opening one into the prompt. Tags in code are content.
    """
    kept_parts: list[str] = []
    start, thinking, fenced, blocks = 0, False, False, 0
    last_close = max(text.rfind("</"), text.rfind("[/"))
    for token in _TOKEN.finditer(text):
        kind = token.lastgroup
        if kind == "fence":
            fenced = fenced if thinking else not fenced
        elif kind == "final":
            # What came before is another channel: of thoughts, or of notes about calls.
            kept_parts, start, thinking, fenced, blocks = [], token.end(), False, False, blocks + 1
        elif kind == "close" and thinking:
            thinking, start = False, token.end()
        elif thinking or fenced or _is_quoted(text, token):
            continue
        elif kind == "open":
            # A tag amid a line that is never closed is only spoken of.
            if _stands_alone(text, token) or token.end() <= last_close:
                kept_parts.append(text[start : token.start()])
                thinking, blocks = True, blocks + 1
        elif blocks or _stands_alone(text, token):
            # Everything since the last block belongs to a thought whose beginning is not shown.
            kept_parts = kept_parts if blocks else []
            start, blocks = token.end(), blocks + 1
    if not thinking:
        kept_parts.append(text[start:])
    bare = _strip_ends("".join(kept_parts) if blocks else text)
    return bare if blocks or bare != text.strip() else text


def _is_quoted(text: str, token: re.Match[str]) -> bool:
    return text[token.start() - 1 : token.start()] == "`"


def _stands_alone(text: str, token: re.Match[str]) -> bool:
    """True when a tag begins or ends its line."""
    before, after = text[max(0, token.start() - 8) : token.start()], text[token.end() : token.end() + 1]
    line = before.rpartition("\n")[2]
    at_start = not line.strip() and (len(before) < 8 or "\n" in before)
    return at_start or after in ("\n", "\r", "")


def _strip_ends(text: str) -> str:
    """The text without special tokens at its ends and without one wrapper around the whole."""
    bare = text.strip()
    for _ in range(_MOST_TOKENS):
        end = next((token for token in _ENDS if bare.endswith(token)), "")
        begin = next((token for token in _BEGINS if bare.startswith(token)), "")
        if not end and not begin:
            break
        bare = bare[len(begin) : len(bare) - len(end)].strip()
    for name in _WRAPPERS:
        if bare.startswith(f"<{name}>") and bare.endswith(f"</{name}>") and bare.count(f"<{name}>") == 1:
            bare = bare[len(name) + 2 : -len(name) - 3].strip()
            break
    return bare


class LiveThinkingFilter:
    """Keeps blocks of thinking out of text that is shown while it comes; `strip_thinking` reads the reply itself."""

    def __init__(self) -> None:
        self._before, self._held, self._thinking, self._fenced = "\n", "", False, False

    def feed(self, piece: str) -> str:
        """The text that can be shown now."""
        # The character before tells a line's beginning, and whether a tag stands in code.
        text, shown_parts, position = self._before + self._held + piece, [], 1
        for token in _TOKEN.finditer(text, 1):
            kind = token.lastgroup
            if kind == "fence":
                self._fenced = self._fenced if self._thinking else not self._fenced
            elif self._thinking or not (self._fenced or kind == "close" or _is_quoted(text, token)):
                if not self._thinking:
                    shown_parts.append(text[position : token.start()])
                self._thinking, position = kind == "open", token.end()
        tail = max(position, len(text) - MAX_TOKEN_CHARS)
        partial = _PARTIAL.search(text, tail)
        cut = partial.start() if partial else len(text)
        if not self._thinking:
            shown_parts.append(text[position:cut])
        self._before, self._held = text[max(0, cut - 1) : cut] or "\n", text[cut:]
        return "".join(shown_parts)

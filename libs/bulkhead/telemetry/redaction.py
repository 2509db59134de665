"""Keys in texts that leave the process for a log, a trace or a person. Enters: any text. Leaves: it without keys."""

import re

from bulkhead.grounding.personal_data import mask_personal_data

REDACTED = "[redacted]"
_KEYS = {
    # What stands in every key of a kind: a text without it is not searched.
    ("sk-", "pk-", "rk-"): r"\b(?:sk|pk|rk)-[A-Za-z0-9_*-]{6,}",  # OpenAI's, Anthropic's, and of those who copy them
    ("AIza",): r"\bAIza[A-Za-z0-9_*-]{20,}",  # Google's API keys
    ("AQ.",): r"\bAQ\.[A-Za-z0-9_-]{20,}",  # and their newer form
    ("ya29.",): r"\bya29\.[A-Za-z0-9._-]{20,}[A-Za-z0-9_-]",  # Google's access tokens
    # Groq, Hugging Face, xAI, Perplexity
    ("gsk_", "hf_", "xai-", "pplx-"): r"\b(?:gsk_|hf_|xai-|pplx-)[A-Za-z0-9_-]{20,}",
    ("gh", "glpat-"): r"\b(?:gh[pousr]_|github_pat_|glpat-)[A-Za-z0-9_-]{20,}",  # GitHub, GitLab
    ("xox",): r"\bxox[abeprs]-[A-Za-z0-9-]{10,}",  # Slack
    ("AKIA", "ASIA"): r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",  # Amazon's key ids
    ("-----BEGIN",): r"-----BEGIN[ A-Z]{0,30}PRIVATE KEY-----[^-]{1,20000}(?:-----END[ A-Z]{0,30}PRIVATE KEY-----)?",
    ("earer",): r"\b[Bb]earer\s+[^\s\"',;]+",
    ("key=",): r"([?&]key=)[^&\s\"']+",  # Google takes a key in the address
    ("://",): r"(://)[^/@\s]+@",
}
_SEARCHED = tuple((hints, re.compile(pattern)) for hints, pattern in _KEYS.items())


def has_keys(text: str) -> bool:
    """Check whether anything in the text looks like a key."""
    return any(pattern.search(text) for hints, pattern in _SEARCHED if any(hint in text for hint in hints))


def without_sensitive(text: str) -> str:
    """The text without keys and personal data: for traces, summaries, failures and whatever else many may read."""
    return mask_personal_data(without_keys(text))


def without_keys(text: str) -> str:
    """The text without whatever looks like a key."""
    for hints, pattern in _SEARCHED:
        if any(hint in text for hint in hints):
            text = pattern.sub(rf"\1{REDACTED}" if pattern.groups else REDACTED, text)
    return text

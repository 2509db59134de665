"""Checks of cases.jsonl in plain Python: each takes the answer, and returns "" or why it does not pass."""


def names_currency(answer):
    """A price names its currency."""
    return "" if "EUR" in answer.text or "\N{EURO SIGN}" in answer.text else "no currency is named"

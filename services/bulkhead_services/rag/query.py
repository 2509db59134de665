"""Search terms of a query, safe for FTS5. Enters: any text. Leaves: terms and match expressions.

Pure. Only letters and digits survive, each term quoted: nothing in a query can be an operator, a column
filter or a syntax error.
"""

import re

from bulkhead_contracts import bounds

_WORD = re.compile(r"[^\W_]+")
# Light on purpose: a word that stands here cannot be searched for, unless nothing else is asked.
_COMMON = """
    a an and are as at be been but by can could did do does for from had has have how i if in into is it its
    me my of on or our shall should so than that the their them then there these they this those to was we
    were what when where which who whom why will with would you your"""
_STOPWORDS = frozenset(_COMMON.split())
_MIN_PREFIX_CHARS = 4


def search_terms(query: str) -> tuple[str, ...]:
    """Distinct words in order, lower case, without stopwords unless there is nothing else."""
    words = list(dict.fromkeys(token.lower()[:64] for token in _WORD.findall(query)))
    terms = [token for token in words if token not in _STOPWORDS] or words
    return tuple(terms[: bounds.MAX_QUERY_TERMS])


def any_term_expression(terms: tuple[str, ...]) -> str:
    """FTS5 expression: any of the terms (stemmed by the tokenizer)."""
    return " OR ".join(f'"{term}"' for term in terms)


def prefix_expression(terms: tuple[str, ...]) -> str:
    """FTS5 expression for when no term is found: words that begin like the terms; "" when too short."""
    long = [term for term in terms if len(term) >= _MIN_PREFIX_CHARS]
    stems = [term[: max(_MIN_PREFIX_CHARS, len(term) - 3)] for term in long]
    return " OR ".join(f'"{stem}"*' for stem in dict.fromkeys(stems))

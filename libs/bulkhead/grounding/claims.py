"""Which sentences of an answer claim something. Greetings, offers, questions and headings need no source."""

import re

from bulkhead.grounding.language import fold_text, word_stems

ABSENCE = re.compile(
    r"\b(?:do|does|did|is|are|was|were|could|can|has|have)(?: not|n['’]t) (?:\w+ ){0,2}?(?:say|state|mention"
    r"|contain|name|show|tell|record|reveal"
    r"|specif|hold|provide|include|give|indicat|cover|address|find|found|answer|list|available"
    r"|disclosed|any information)"
    r"|\b(?:no|not any|not enough|without) (?:\w+ )?(?:information|mention|answer|details?|data|statement|evidence"
    r"|passages?|documents?)\b"
    r"|\bnothing (?:was |is )?(?:found|said|stated|about)\b|\bcannot (?:be )?(?:answer|determin|find|found)"
    r"|\bnot (?:found|stated|specified|mentioned|answered)\b"
    r"|\b(?:nicht|kein\w*) .{0,40}(?:angegeb|enthalt|erwahn|genannt|angab|information|hinweis|gefunden|hervor)"
    r"|\b(?:ne|n['’]) ?\w+ (?:pas|aucun)|\baucune? (?:information|mention)"
    r"|\bno (?:se )?(?:menciona|especifica|indica|contiene|dice|hay)|\bnon (?:e )?(?:indicat|specificat|menziona)"
    r"|記載(?:が|は)?(?:あり)?ませ|ありません|見つかりません",
    re.I,
)
_TALK = re.compile(
    r"^(?:sure|certainly|of course|hello|hi|hey|dear|thanks?|thank you|great question|good question|absolutely|okay|ok"
    r"|gladly|happy to|hallo|gerne|guten tag|naturlich|bonjour|bien sur|hola|claro|ciao|certo|here(?:['’]s| is| are)"
    r"|based on|according to the (?:documents?|sources?|passages?)[,: ]*$|let me|i(?:['’]ll| will| have| hope| can"
    r"| looked| searched| found| checked)|hope (?:this|that)|feel free|please (?:let|feel|note that i)"
    r"|if you (?:need|have|want|would)|do you|would you|is there anything|let us|answer:?$"
    r"|[(\[]?(?:sources?|quellen?|fuentes?|fonti?)\b"
    r"|in (?:short|summary|conclusion)[,:]?$|hier (?:ist|sind)|ich (?:hoffe|habe)|voici|j['’]espere|espero|aqui)\b",
    re.I,
)
_YES_OR_NO = re.compile(r"^(?:yes|no|ja|nein|oui|non|si|sí|はい|いいえ)\b", re.I)
MAX_TALK_CHARS = 160
MIN_CLAIM = 2
_CLAUSE = re.compile(
    r"[,;:–—]|\b(?:and|but|though|although|because|while|so|und|aber|obwohl|weil|wahrend|et|mais|car|y|pero|porque|ma|perche)\b"
)


def is_absence(sentence: str, given: frozenset[str] = frozenset()) -> bool:
    """True when it says that something is not known or not said, and nothing besides.

    given: words of the question; a clause of others, beside the one that says so, is a claim of its own.
    """
    clauses = [(clause, ABSENCE.search(clause) is not None) for clause in _CLAUSE.split(fold_text(sentence))]
    if not any(absent for _, absent in clauses):
        return False
    return all(absent or len(word_stems(clause) - given) < MIN_CLAIM for clause, absent in clauses)


def is_talk(sentence: str) -> bool:
    """True when it addresses the reader and claims nothing. The caller has seen that it holds no value of its own."""
    bare = sentence.strip(" \n\t*_#>-•`~:|")
    if not any(char.isalpha() for char in bare) or bare.endswith(("?", "？")):
        return True
    return len(bare) <= MAX_TALK_CHARS and _TALK.match(fold_text(bare)) is not None


def is_heading(sentence: str) -> bool:
    """True for a heading or a label: it names, and says nothing yet."""
    stripped = sentence.strip()
    bare = stripped.strip("*_#` ")
    return len(bare.split()) <= 10 and (
        stripped.startswith("#") or bare.endswith((":", "：")) or bare.startswith("```")
    )


def says_yes_or_no(sentence: str) -> bool:
    """True when it answers with yes or no."""
    return _YES_OR_NO.match(sentence.strip(" *_")) is not None


_ROLES = {
    "in force": r"\b(?:in force|effective|takes? effect|valid from|applies from|enters? into|gilt ab|wirksam|in kraft"
    r"|vigueur|vigor)\b",
    "due": r"\b(?:due|deadline|no later than|action|to ?do|fallig|frist|echeance|vence)\b",
    "end": r"\b(?:expires?|ends?|until|terminates?|endet|lauft aus|expire|vencimiento)\b",
    "signed": r"\b(?:signed|dated|unterzeichnet|signe|firmado)\b",
}
_ROLE = {name: re.compile(pattern) for name, pattern in _ROLES.items()}


def date_roles(text: str) -> frozenset[str]:
    """The roles of a text's dates, by its words: from when something holds, when it is due, ends, was signed."""
    folded = fold_text(text[:2_000])
    return frozenset(name for name, pattern in _ROLE.items() if pattern.search(folded))

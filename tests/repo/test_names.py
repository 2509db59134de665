"""Identifiers of the product, measured: a reader new to the code knows what they mean. The bounds only fall."""

import ast
import re
from collections import Counter, defaultdict

from tests.repo.test_rooms import TREES

VAGUE = re.compile(
    "one|found|said|told|more|known|given|made|wanted|word|own|whole|left|why|at|asked|stands|what|other|others|rest|"
    "here|there|now|then|again|like|kept|read|seen|shown|taken|gone|going|come|held|put"
)
HEADLESS = frozenset({"What", "Who", "Whose", "Whoever", "Whether", "Where", "How", "Of", "So", "As", "No", "Nobody"})
MAX_ONE_WORD_FUNCTIONS, MAX_VAGUE_LOCALS, MAX_HEADLESS_DOCSTRINGS = 0.12, 0.005, 0.0005
MAX_REPEATED_CLASSES, MAX_CROWDED_METHODS = 6, 8
CROWD = 10
"""Classes that may have a method of the same name, other than those that Python gives a meaning."""

FUNCTIONS = [
    node
    for tree in TREES.values()
    for node in ast.walk(tree)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
]
CLASSES = [node for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]


def test_functions_say_what_they_do_to_what() -> None:
    names = [node.name for node in FUNCTIONS if not node.name.startswith("__")]
    assert sum("_" not in name.strip("_") for name in names) / len(names) <= MAX_ONE_WORD_FUNCTIONS


def test_locals_say_what_they_hold() -> None:
    names = [
        node.id
        for function in FUNCTIONS
        for node in ast.walk(function)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    ]
    assert sum(bool(VAGUE.fullmatch(name)) for name in names) / len(names) <= MAX_VAGUE_LOCALS


def test_classes_are_told_apart_by_their_names() -> None:
    counts = Counter(node.name for node in CLASSES)
    repeated = {name: count for name, count in counts.items() if count > 1}
    assert len(repeated) <= MAX_REPEATED_CLASSES, repeated


def test_methods_of_one_name_mean_one_thing() -> None:
    classes: defaultdict[str, set[int]] = defaultdict(set)
    for node in CLASSES:
        for member in node.body:
            if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef) and not member.name.startswith("__"):
                classes[member.name].add(id(node))
    crowded = {name: len(nodes) for name, nodes in classes.items() if len(nodes) > CROWD}
    assert len(crowded) <= MAX_CROWDED_METHODS, crowded


def test_docstrings_begin_with_a_noun_or_a_verb() -> None:
    nodes = [*FUNCTIONS, *CLASSES, *TREES.values()]
    first_words = [text.split(maxsplit=1)[0].rstrip(",:;.") for node in nodes if (text := ast.get_docstring(node))]
    assert sum(word in HEADLESS for word in first_words) / len(first_words) <= MAX_HEADLESS_DOCSTRINGS

"""Checks in plain Python: functions of the set's author, loaded from a file beside the set.

In: `path.py:function` and an answer. Out: why the answer does not pass. The function runs in this process with all of
its rights: a set of others is to be read before it is run.
"""

import importlib.util
import queue
import threading
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from bulkhead.evaluation.answers import CaseAnswer
from bulkhead.evaluation.cases import CaseError, EvaluationCase

SHOWN_CHARS = 200
TIMEOUT_S = 10.0
"""So long a function may take over one answer."""
PythonCheck = Callable[[CaseAnswer], object]


@cache
def load_python_check(place: str) -> PythonCheck:
    """The function of a file. Raises CaseError."""
    path, _, name = place.rpartition(":")
    spec = importlib.util.spec_from_file_location(f"bulkhead_check_{Path(path).stem}", path)
    try:
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        function: PythonCheck = getattr(module, name)
    except (Exception, SystemExit) as error:
        problem = f"the check {place} cannot be loaded: {type(error).__name__}: {error}"
        hint = 'write `def check(answer): return "" if ... else "why"` into a file beside the set'
        raise CaseError(problem[:SHOWN_CHARS], hint) from error
    return function


def load_python_checks(cases: Iterable[EvaluationCase]) -> None:
    """Load the functions of all cases, before a task is paid that they are to judge. Raises CaseError."""
    for place in dict.fromkeys(check.python for case in cases for check in case.checks if check.python):
        load_python_check(place)


def run_python_check(place: str, answer: CaseAnswer) -> str:
    """The reason for which an answer does not pass; "" when it does. Raises CaseError for a function that is not
    there; an error of its own is a reason, and so is that it takes too long."""
    function = load_python_check(place)
    reasons: queue.SimpleQueue[str] = queue.SimpleQueue()
    # A daemon, which nobody waits for: there is no way to end a thread.
    thread = threading.Thread(target=lambda: reasons.put(_call_check(function, answer)), daemon=True)
    thread.start()
    try:
        return reasons.get(timeout=TIMEOUT_S)
    except queue.Empty:
        return f"it gave no verdict in {TIMEOUT_S:g} s"


def _call_check(function: PythonCheck, answer: CaseAnswer) -> str:
    try:
        verdict = function(answer)
        if isinstance(verdict, str):
            return " ".join(verdict.split())[:SHOWN_CHARS]
        if isinstance(verdict, bool):
            return "" if verdict else "it does not hold"
        return f"it returned {verdict!r}"[:SHOWN_CHARS]
    except (Exception, SystemExit) as error:
        return f"it raised {type(error).__name__}: {error}"[:SHOWN_CHARS]

"""Names of the parties of waits: the title of a step and the objective of its task instead of their ids.

In: parties (`task/step`, or a resource, which has a colon in front) and sentences that name them. Out: titles, links,
and sentences with links in place of ids and times in place of Unix milliseconds.
"""

import asyncio
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from markupsafe import Markup

from bulkhead.text.plain_text import cut_line, escape_controls
from bulkhead_services.gateway.console.api import Json
from bulkhead_services.gateway.console.pages import format_moment, mark_code
from bulkhead_services.gateway.console.visits import Visit

MAX_READ = 24
"""Tasks that are read whole for the titles of their steps; others keep their steps' ids."""
MAX_OBJECTIVE_CHARS = 60
TASK_ID = re.compile(r"\bt[a-z2-7]{25}\b")
NAMED = re.compile(
    r"\b(?:[Uu]nix ms )?(?P<unix_ms>1[5-9][0-9]{11})\b"
    r"|(?<![\w:/-])(?P<task>[A-Za-z0-9_-]{1,64})(?:/(?P<step>[A-Za-z0-9_-]{1,64}))?(?![\w/-])"
)
HELD_BY = " held by "


@dataclass(frozen=True, slots=True)
class PartyNames:
    """tasks: by id, documents or rows of the list: only documents name steps."""

    tasks: Mapping[str, Json] = field(default_factory=dict)

    def step_title(self, party: str) -> str:
        """The title of a step, or its id; a resource's name."""
        task_id, step_id = split_party(party)
        return (self._find_step(task_id, step_id).get("title") or step_id) if step_id else party

    def task_objective(self, party: str) -> str:
        """The objective of a step's task, or the task's id; "" of a resource."""
        task_id, _ = split_party(party)
        return (self.tasks.get(task_id) or {}).get("objective") or task_id

    def page_address(self, party: str) -> str:
        """The page of a step; "" of a resource."""
        task_id, step_id = split_party(party)
        step = self._find_step(task_id, step_id)
        row = f"?at=step.{step['plan_version']}.{quote(step_id)}" if step else ""
        return f"/tasks/{quote(task_id, safe='')}{row}" if task_id else ""

    def link_party(self, party: str) -> Markup:
        """`STEP of “TASK”` with a link, the title alone where both have one; a resource's name."""
        if not split_party(party)[0]:
            return Markup.escape(escape_controls(cut_line(party, 100)))
        title = cut_line(self.step_title(party), MAX_OBJECTIVE_CHARS)
        objective = cut_line(self.task_objective(party), MAX_OBJECTIVE_CHARS)
        words = title if title == objective else f"{title} of “{objective}”"
        return Markup('<a href="{}">{}</a>').format(self.page_address(party), escape_controls(words))

    def link_sentence(self, sentence: str) -> Markup:
        """A sentence with the names of known tasks and steps, and with times."""
        pieces, end = [], 0
        for match in NAMED.finditer(sentence):
            if (words := self._spell_out(match)) is not None:
                pieces += [Markup.escape(escape_controls(sentence[end : match.start()])), words]
                end = match.end()
        return mark_code(Markup("").join([*pieces, Markup.escape(escape_controls(sentence[end:]))]))

    def _spell_out(self, match: re.Match[str]) -> Markup | None:
        if match["unix_ms"]:
            return Markup("{} UTC").format(format_moment(int(match["unix_ms"])))
        if match["task"] not in self.tasks:
            return None
        if match["step"]:
            return self.link_party(match[0])
        words = cut_line(self.task_objective(f"{match['task']}/"), MAX_OBJECTIVE_CHARS)
        return Markup('<a href="/tasks/{}">{}</a>').format(match["task"], escape_controls(words))

    def holder_of(self, wait: Json) -> Json:
        """The task that holds what a wait for a lease is for, {} where it is not known."""
        _, held, holder = wait["what"].rpartition(HELD_BY)
        return self.tasks.get(split_party(holder)[0], {}) if held and wait["kind"] == "lease" else {}

    def _find_step(self, task_id: str, step_id: str) -> Json:
        steps: list[Json] = (self.tasks.get(task_id) or {}).get("steps", [])
        return next((step for step in steps if step["step_id"] == step_id), {})


def split_party(party: str) -> tuple[str, str]:
    """Task and step of a party; twice "" of a resource."""
    task_id, slash, step_id = party.partition("/")
    return (task_id, step_id) if slash and ":" not in task_id else ("", "")


def tasks_in(sentences: Iterable[str]) -> list[str]:
    """Ids of tasks that sentences name, each once."""
    return list(dict.fromkeys(task_id for sentence in sentences for task_id in TASK_ID.findall(sentence)))


async def read_party_names(visit: Visit, task_ids: Iterable[str], rows: Iterable[Json] = ()) -> PartyNames:
    """Names of these tasks and of their steps. rows: of the task list, for tasks that are not read whole."""
    read_ids = list(dict.fromkeys(filter(None, task_ids)))[:MAX_READ]
    documents = await asyncio.gather(*(visit.get_or(f"/v1/tasks/{task_id}", {}) for task_id in read_ids))
    by_id = {row["task_id"]: row for row in rows}
    return PartyNames(by_id | {document["task_id"]: document for document in documents if "refused" not in document})

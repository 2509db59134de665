"""The pages on coding agents and on chat front ends: what they tell people to type is what the tests run.

In: a page. Out: the routes of its mesh, and a block of shell by program and API.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.clients.conversation import Api
from tests.paths import ROOT

PAGE = ROOT / "docs" / "how-to" / "coding-agents.md"
CHATS_PAGE = PAGE.with_name("chat-front-ends.md")
APIS: dict[str, Api] = {
    "By chat completions": "openai-chat",
    "By Anthropic's messages": "anthropic",
    "By responses": "openai-responses",
}
ADDRESS, KEY = "http://127.0.0.1:8090", "bk_..."
PROMPTS = ("Correct 1180 to 1210 in notes.txt.", "What is shown?")
_BLOCK = re.compile(r"^(By [^\n]+):\n\n```sh\n(.*?)^```", re.M | re.S)


@dataclass(frozen=True)
class Setup:
    """What a person types to let a program work on the mesh by one API."""

    program: str
    api: Api
    shell: str

    def fill_in(self, address: str, key: str, marker: str) -> str:
        """The block as it runs. marker: is written into the prompt."""
        (prompt,) = [prompt for prompt in PROMPTS if prompt in self.shell]
        assert ADDRESS in self.shell and KEY in self.shell, self.shell
        return self.shell.replace(ADDRESS, address).replace(KEY, key).replace(prompt, f"{marker}: {prompt}")


def read_setups(page: Path = PAGE) -> list[Setup]:
    """All that a page has, in its order."""
    sections = re.split(r"^## ", page.read_text(), flags=re.M)[1:]
    return [
        Setup(section.partition("\n")[0], APIS[name], shell)
        for section in sections
        for name, shell in _BLOCK.findall(section)
    ]


def read_variable(name: str) -> str:
    """The value that the page exports under this name."""
    (value,) = re.findall(rf"^export {name}='?(.*?)'?$(?!\n  )", PAGE.read_text(), re.M | re.S)[:1]
    return str(value)

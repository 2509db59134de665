"""The page on clients shows what is pinned: each program of tests/e2e/clients with its version, each setup that people
are told, each SDK."""

from importlib.metadata import version
from pathlib import Path

import pytest

from tests.e2e.clients.clients_table import rows_of
from tests.e2e.clients.page import CHATS_PAGE, PAGE, read_setups
from tests.e2e.clients.programs import pinned_versions


@pytest.mark.parametrize(("page", "section"), [(PAGE, "Coding agents"), (CHATS_PAGE, "Chat front ends")])
def test_each_setup_has_a_row_with_the_version_that_is_pinned(page: Path, section: str) -> None:
    packages = pinned_versions()
    setups = {(setup.program, "`{}` {}".format(*packages[setup.program]), setup.api) for setup in read_setups(page)}
    assert {tuple(row[:3]) for row in rows_of(section)} == setups


def test_each_pinned_program_has_a_row() -> None:
    shown = {row[0] for section in ("Coding agents", "Chat front ends", "Loops") for row in rows_of(section)}
    assert shown == pinned_versions().keys()


def test_the_sdks_are_those_that_are_installed() -> None:
    shown = {row[0].partition(",")[0] for row in rows_of("SDKs")}
    assert shown == {f"`{name}` {version(name)}" for name in ("anthropic", "openai")}

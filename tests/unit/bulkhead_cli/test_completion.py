"""Completion: the script that `bulkhead completion` prints, run by a shell."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bulkhead_cli.main import app


def script(shell: str) -> str:
    answer = CliRunner().invoke(app, ["completion", shell])
    assert answer.exit_code == 0, answer.output
    return answer.stdout


@pytest.fixture
def on_path(tmp_path: Path) -> dict[str, str]:
    """An environment in which `bulkhead` is this source's."""
    program = tmp_path / "bulkhead"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m bulkhead_cli.main "$@"\n')
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}


def completed(environ: dict[str, str], *words: str) -> list[str]:
    """As bash does when Tab is pressed behind these words."""
    line = " ".join(f"'{word}'" for word in words)
    press = f'COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _bulkhead_completion bulkhead; echo "${{COMPREPLY[*]}}"'
    text = f"{script('bash')}\ncomplete -p bulkhead >&2\n{press}\n"
    done = subprocess.run(["bash", "--norc"], input=text, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "-F _bulkhead_completion bulkhead" in done.stderr, done.stderr
    return done.stdout.split()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_commands_options_and_values(on_path: dict[str, str]) -> None:
    assert completed(on_path, "bulkhead", "to") == ["tools", "topup"]
    assert completed(on_path, "bulkhead", "limits", "s") == ["set"]
    assert completed(on_path, "bulkhead", "tasks", "--st") == ["--status"]
    assert completed(on_path, "bulkhead", "spend", "--by", "f") == ["feature"]


def test_every_shell_has_a_script() -> None:
    for shell, mark in (
        ("bash", "complete -o default -F"),
        ("zsh", "compdef"),
        ("fish", "complete --command bulkhead"),
    ):
        assert mark in script(shell) and "_BULKHEAD_COMPLETE" in script(shell)
    refused = CliRunner().invoke(app, ["completion", "tcsh"])
    assert refused.exit_code == 2 and "bash" in refused.stderr

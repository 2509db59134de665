"""`bulkhead completion`: the words of this command line, completed by a shell."""

from typing import Annotated, Literal

import typer

from bulkhead_cli.output import Work

VARIABLE = "_BULKHEAD_COMPLETE"
"""Variable by which a shell asks for completions, as the scripts set it."""

Shell = Annotated[Literal["bash", "zsh", "fish"], typer.Argument(metavar="bash|zsh|fish", help="Name of the shell.")]


def completion(shell: Shell) -> Work:
    """Print a script that completes words of this command in a shell.

    bash: add [bold]eval "$(bulkhead completion bash)"[/bold] to ~/.bashrc. zsh: the same with zsh in ~/.zshrc, behind
    compinit. fish: [bold]bulkhead completion fish > ~/.config/fish/completions/bulkhead.fish[/bold].
    """
    from typer._completion_shared import get_completion_script

    typer.echo(get_completion_script(prog_name="bulkhead", complete_var=VARIABLE, shell=shell))
    return None

"""Text for people: plain without a terminal, and without control characters of others.

A module of its own, because commands that print JSON need no rich.
"""

import os
import sys
from collections.abc import Iterable
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.control import Control
from rich.segment import ControlType, Segment

from bulkhead.text.plain_text import CONTROLS, escape_controls

PIPE_WIDTH = 200
"""Columns where there is no terminal to ask, unless COLUMNS says."""


def _stream_width(stream: TextIO) -> int | None:
    return None if stream.isatty() or os.environ.get("COLUMNS") else PIPE_WIDTH


class SafeConsole(Console):
    """A console that prints no control character but its own."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See Console: everything that is printed comes by here."""
        for segment in super().render(renderable, options):
            yield (
                segment
                if segment.control or not CONTROLS.search(segment.text)
                else Segment(escape_controls(segment.text), segment.style)
            )

    def print_over(self, text: str) -> None:
        """Print what the next line is written over: how far something is."""
        self.print(text, end="", style="dim")
        self.control(Control(ControlType.CARRIAGE_RETURN))


out = SafeConsole(soft_wrap=True, highlight=False, width=_stream_width(sys.stdout))
err = SafeConsole(stderr=True, soft_wrap=True, highlight=False, width=_stream_width(sys.stderr))


LONG_LINE = 100_000


def print_whole(renderable: object) -> None:
    """Print a table or tree; without a terminal its lines are as long as they are, whatever COLUMNS says."""
    (out if out.is_terminal else SafeConsole(soft_wrap=True, highlight=False, width=LONG_LINE)).print(renderable)

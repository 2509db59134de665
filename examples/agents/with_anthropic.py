"""A loop of one's own over Anthropic's SDK, streamed."""

import os
import sys
from typing import Any

import anthropic
from calculator import calculate

TOOL: Any = {
    "name": "calculate",
    "description": calculate.__doc__,
    "input_schema": {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]},
}


def main(questions: list[str]) -> None:
    client = anthropic.Anthropic()
    messages: list[Any] = []
    for question in questions:
        messages.append({"role": "user", "content": question})
        while True:
            with client.messages.stream(
                model=os.environ["MODEL"], messages=messages, tools=[TOOL], max_tokens=400
            ) as stream:
                for text in stream.text_stream:
                    print(text, end="", flush=True)
                answer = stream.get_final_message()
            messages.append({"role": "assistant", "content": answer.content})
            uses = [block for block in answer.content if block.type == "tool_use"]
            if not uses:
                print()
                break
            results = [
                {"type": "tool_result", "tool_use_id": use.id, "content": calculate(**use.input)}  # type: ignore[arg-type]
                for use in uses
            ]
            messages.append({"role": "user", "content": results})


main(sys.argv[1:])

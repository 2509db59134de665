"""A loop of one's own over OpenAI's SDK, streamed."""

import json
import os
import sys
from typing import Any

import openai
from calculator import calculate

TOOL = {
    "type": "function",
    "function": {
        "name": "calculate",
        "description": calculate.__doc__,
        "parameters": {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]},
    },
}


def main(questions: list[str]) -> None:
    client = openai.OpenAI()
    messages: list[Any] = []
    for question in questions:
        messages.append({"role": "user", "content": question})
        while True:
            with client.chat.completions.stream(
                model=os.environ["MODEL"], messages=messages, tools=[TOOL], max_tokens=400
            ) as stream:
                for event in stream:
                    if event.type == "content.delta":
                        print(event.delta, end="", flush=True)
                answer = stream.get_final_completion().choices[0].message
            messages.append(answer.model_dump(include={"role", "content", "tool_calls"}, exclude_none=True))
            if not answer.tool_calls:
                print()
                break
            for call in answer.tool_calls:
                found = calculate(**json.loads(call.function.arguments))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": found})


main(sys.argv[1:])

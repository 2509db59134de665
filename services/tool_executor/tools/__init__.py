"""One module per tool, named like its row in infra/tools/tools.yaml, each with `async def run(arguments, call)`."""

"""One module per tool, named like its row in libs/bulkhead/tools/tools.yaml, each with `async def run(arguments,
call)`."""

"""The HTTP face of the offline model in OpenAI's wire format, with faults on demand."""

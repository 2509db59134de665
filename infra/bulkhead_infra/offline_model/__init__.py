"""An OpenAI-compatible HTTP server whose answers come from rules, not from a language model.

Enters: chat-completion requests. Leaves: plans, tool calls, cited extracts and verdicts, deterministic.
"""

MODEL_NAME = "offline-rules-1"
SYSTEM_FINGERPRINT = "bulkhead-offline-rules-1"

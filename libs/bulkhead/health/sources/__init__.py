"""Sources of events: a mesh's journal, traces, spans and chat transcripts."""

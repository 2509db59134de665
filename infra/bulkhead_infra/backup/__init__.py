"""Backup and restore of a mesh: every stream with its sequences, consumers' positions, documents, and keys if asked.

`archive` is the file, `stream_copies` speaks to the broker, `taking` and `restoring` are the order in which things are
done and why, `places` knows where a mesh keeps what, `lockbox` seals keys. People read
docs/how-to/backup-and-restore.md.
"""

"""Backup and restore of a mesh: every stream with its sequences, consumers' positions, documents, and keys if asked.

`archive` is the file, `stream_copies` speaks to the broker, `backup` and `restore` keep the order of the copies and say
why, `locations` knows where a mesh keeps its data, `key_sealing` seals keys. The manual is
docs/how-to/backup-and-restore.md.
"""

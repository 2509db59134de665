"""Credentials of tools: by reference, of the tenant and user who call, read and exchanged in this process."""

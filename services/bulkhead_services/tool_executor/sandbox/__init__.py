"""Sandboxes of tools: walls around a process, code without a system (WebAssembly), containers; each tried at start."""

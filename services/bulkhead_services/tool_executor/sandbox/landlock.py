"""Landlock: which files a process reads and writes, and that it signals nobody outside, whatever its user may do.

In: paths. Effect: for this process and all that it starts, for good. Standard library alone: it runs in the tool's
process. Source: Documentation/userspace-api/landlock.rst of the kernel.
"""

import ctypes
import os
import stat
import struct
import sys
from collections.abc import Iterable

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION = 1
PATH_BENEATH = 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
TRUNCATE, IOCTL_DEV = 1 << 14, 1 << 15
NODES = 1 << 6 | 1 << 11
"""Making devices (MAKE_CHAR, MAKE_BLOCK): never allowed."""
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
READING = EXECUTE | READ_FILE | READ_DIR
TCP = 1 << 0 | 1 << 1
ABSTRACT_SOCKETS, SIGNALS = 1 << 0, 1 << 1
_RIGHTS_OF = {1: 13, 2: 14, 3: 15, 4: 15}
"""By version, how many rights of files there are; 16 from 5 on."""
WITH_SIGNALS = 6


def abi_version() -> int:
    """The kernel's version of Landlock; 0 where it has none."""
    if sys.platform != "linux":
        return 0
    return max(0, int(ctypes.CDLL(None).syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(VERSION))))


def restrict_paths(*, read: Iterable[str], listed: Iterable[str], write: Iterable[str], network: bool) -> None:
    """Read below these paths, list those, change what lies below `write`, and nothing else. Needs no_new_privs.
    Raises OSError."""
    abi = abi_version()
    if not abi:
        raise OSError(38, "the kernel has no Landlock, or it is switched off (lsm=)")
    all_rights = (1 << _RIGHTS_OF.get(abi, 16)) - 1
    net = 0 if network or abi < 4 else TCP
    scopes = ABSTRACT_SOCKETS | SIGNALS if abi >= WITH_SIGNALS else 0
    attributes = struct.pack("=QQQ", all_rights, net, scopes)[: 8 if abi < 4 else 16 if abi < WITH_SIGNALS else 24]
    ruleset = _call_kernel(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    try:
        for path in read:
            _allow_path(ruleset, path, READING & all_rights)
        for path in listed:
            _allow_path(ruleset, path, READ_DIR)
        for path in write:
            _allow_path(ruleset, path, all_rights & ~NODES)
        _call_kernel(RESTRICT_SELF, ruleset, ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def _allow_path(ruleset: int, path: str, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(opened).st_mode):
            rights &= OF_FILES
        rule = struct.pack("=Qi", rights, opened)
        _call_kernel(ADD_RULE, ruleset, ctypes.c_int(PATH_BENEATH), rule, ctypes.c_uint32(0))
    finally:
        os.close(opened)


def _call_kernel(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(libc.syscall(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"Landlock: {os.strerror(ctypes.get_errno())}")
    return result

"""System calls that a tool's process must not make, as a filter that the kernel keeps for it and all that it starts.

In: whether it may use the network, and signal more than itself. Effect: the calls named here fail with EPERM. Standard
library alone: it runs in the tool's process before anything else.
"""

import ctypes
import os
import platform
import struct
import sys

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
EPERM, ENOSYS = 1, 38
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCHITECTURE, ARGUMENT = 0, 4, 16
X32_BIT = 0x40000000
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
NEW_NAMESPACES = 0x7E020000
"""Of clone: CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""
AF_INET, AF_INET6, AF_NETLINK = 2, 10, 16

_NEVER = (
    # Other processes: their memory, files, limits and order.
    "ptrace 101 117, process_vm_readv 310 270, process_vm_writev 311 271, process_madvise 440 440, kcmp 312 272, "
    "pidfd_getfd 438 438, pidfd_send_signal 424 424, process_mrelease 448 448, migrate_pages 256 238, "
    "move_pages 279 239, setpriority 141 140, ioprio_set 251 30, "
    # Doors around this filter and around the rights of files.
    "io_uring_setup 425 425, io_uring_enter 426 426, io_uring_register 427 427, open_by_handle_at 304 265, "
    "name_to_handle_at 303 264, personality 135 92, modify_ldt 154 -1, "
    # The kernel itself: much code, and most of its holes.
    "bpf 321 280, perf_event_open 298 241, userfaultfd 323 282, add_key 248 217, request_key 249 218, keyctl 250 219, "
    "init_module 175 105, finit_module 313 273, delete_module 176 106, kexec_load 246 104, kexec_file_load 320 294, "
    "iopl 172 -1, ioperm 173 -1, reboot 169 142, syslog 103 116, acct 163 89, swapon 167 224, swapoff 168 225, "
    "quotactl 179 60, quotactl_fd 443 443, fanotify_init 300 262, vhangup 153 58, "
    # What is seen, and where.
    "mount 165 40, umount2 166 39, pivot_root 155 41, chroot 161 51, move_mount 429 429, open_tree 428 428, "
    "fsopen 430 430, fsconfig 431 431, fsmount 432 432, fspick 433 433, mount_setattr 442 442, setns 308 268, "
    "unshare 272 97, sethostname 170 161, setdomainname 171 162, "
    # Clocks of the machine.
    "settimeofday 164 170, clock_settime 227 112, adjtimex 159 171, clock_adjtime 305 266, "
    # Memory that no limit of a process counts, or that stays when it has ended.
    "memfd_create 319 279, memfd_secret 447 447, shmget 29 194, semget 64 190, msgget 68 186, mq_open 240 180"
)
_OF_ITSELF = "prlimit64 302 261, sched_setaffinity 203 122, sched_setscheduler 144 119, sched_setparam 142 118, "
_OF_ITSELF += "sched_setattr 314 274"
"""Calls whose first argument is a process: itself, as 0, alone."""
_SIGNALS = "kill 62 129, tgkill 234 131, tkill 200 130, rt_sigqueueinfo 129 138, rt_tgsigqueueinfo 297 240"
_CLONE, _CLONE3, _SOCKET = (56, 220), (435, 435), (41, 198)

Instruction = tuple[int, int, int, int]


def unsupported_reason() -> str:
    """Why there is no filter on this machine; "" where there is."""
    if sys.platform != "linux" or platform.machine() not in ARCHITECTURES:
        return f"no filter is written for {sys.platform} on {platform.machine()}"
    return ""


def install_filter(*, network: bool, signals: bool) -> None:
    """Filter from now on. Needs no_new_privs. Raises OSError."""
    if problem := unsupported_reason():
        raise OSError(ENOSYS, problem)
    program = b"".join(struct.pack("=HBBI", *instruction) for instruction in _build_program(network, signals))
    code = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    filtered = ctypes.create_string_buffer(head, len(head))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(filtered), 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _build_program(network: bool, signals: bool) -> list[Instruction]:
    column, architecture = ARCHITECTURES[platform.machine()]
    refused: Instruction = (RETURN, 0, 0, ERRNO | EPERM)
    program: list[Instruction] = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL),  # A call in another machine's numbers (32 bits) would pass as something else.
        (LOAD, 0, 0, NUMBER),
    ]
    if column == 0:
        program += [(AT_LEAST, 0, 1, X32_BIT), refused]
    for number in _call_numbers(_NEVER, column):
        program += [(EQUAL, 0, 1, number), refused]
    for number in _call_numbers(_OF_ITSELF, column):
        program += [(EQUAL, 0, 4, number), (LOAD, 0, 0, ARGUMENT), (EQUAL, 1, 0, 0), refused, (RETURN, 0, 0, ALLOW)]
    itself: list[Instruction] = [(LOAD, 0, 0, ARGUMENT), (EQUAL, 2, 0, 0), (EQUAL, 1, 0, os.getpid()), refused]
    for number in () if signals else _call_numbers(_SIGNALS, column):
        program += [(EQUAL, 0, 5, number), *itself, (RETURN, 0, 0, ALLOW)]
    clone = [(LOAD, 0, 0, ARGUMENT), (ANY_BIT, 0, 1, NEW_NAMESPACES), refused, (RETURN, 0, 0, ALLOW)]
    program += [(EQUAL, 0, len(clone), _CLONE[column]), *clone]
    # Its flags lie in memory, which no filter reads: libraries use clone where there is no clone3.
    program += [(EQUAL, 0, 1, _CLONE3[column]), (RETURN, 0, 0, ERRNO | ENOSYS)]
    return [*program, *_socket_rules(_SOCKET[column], network), (RETURN, 0, 0, ALLOW)]


def _socket_rules(number: int, network: bool) -> list[Instruction]:
    """Rules by which there is no socket but a pair of its own (socketpair); with the network, no local one (AF_UNIX)
    to other services.
    """
    refused: Instruction = (RETURN, 0, 0, ERRNO | EPERM)
    if not network:
        return [(EQUAL, 0, 1, number), refused]
    families = [(EQUAL, 2, 0, AF_INET), (EQUAL, 1, 0, AF_INET6), (EQUAL, 0, 1, AF_NETLINK), (RETURN, 0, 0, ALLOW)]
    return [(EQUAL, 0, 6, number), (LOAD, 0, 0, ARGUMENT), *families, refused]


def _call_numbers(table: str, column: int) -> list[int]:
    numbers = [int(row.split()[1 + column]) for row in table.split(", ")]
    return [number for number in numbers if number >= 0]

"""The walls around a tool's process, put up by the process itself before it imports anything of the tool.

In: a plan (sandbox/plan.py). Effect: this process, and all that it starts, is confined for good. Out: by mechanism, ""
where it is in force or why it is not. Standard library alone.
"""

import ctypes
import os
import resource
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from bulkhead_services.tool_executor.sandbox import landlock, seccomp

PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, CLEAR_ALL = 4, 24, 38, 47, 4
NEWNS, NEWIPC, NEWUSER, NEWNET = 0x00020000, 0x08000000, 0x10000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
CAPSET, PIVOT_ROOT, MOUNT_SETATTR = {"x86_64": (126, 155, 442), "aarch64": (91, 41, 442)}.get(
    os.uname().machine, (-1, -1, -1)
)
CAPABILITY_VERSION_3 = 0x20080522
CAPABILITIES = 64
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
DEVICES = ("null", "zero", "full", "random", "urandom")
MACHINE_FILES = ("cpuinfo", "meminfo", "stat", "filesystems", "version", "loadavg", "uptime")
MAX_ROOT_BYTES = 1024 * 1024
FILES_PER_MIB = 64

Plan = dict[str, Any]


class NotConfined(Exception):
    """A wall that was in force when it was tried at start cannot be put up now."""


def confine_process(plan: Plan) -> dict[str, str]:
    """Put up the walls. `must`: mechanisms that have to be; the others may fail. Raises NotConfined."""
    _load_libc().prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    walls = {
        "namespaces": _enter_namespaces,
        "user": _change_user,
        "rlimits": _set_limits,
        "landlock": _apply_landlock,
        "seccomp": _apply_seccomp,
    }
    report: dict[str, str] = {}
    plan = {**plan, "report": report}
    for name, wall in walls.items():
        report[name] = "not asked for" if name in plan.get("without", ()) else _try_wall(wall, plan)
        if report[name] and name in plan["must"]:
            raise NotConfined(f"{name}: {report[name]}")
        if name == "user":
            _drop_capabilities()
    os.umask(0o077)
    _load_libc().prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # It went with the user, and with it what /proc/self tells.
    return report


def _try_wall(wall: Callable[[Plan], None], plan: Plan) -> str:
    try:
        wall(plan)
    except (OSError, ValueError) as error:
        return f"{getattr(error, 'strerror', None) or error}"[:200]
    return ""


def _enter_namespaces(plan: Plan) -> None:
    """A root of its own that holds what it may read, and no network. As root, else in a user namespace."""
    kinds = NEWNS | NEWIPC | (0 if plan["network"] else NEWNET)
    uid, gid = os.getuid(), os.getgid()
    os.umask(0o022)
    if MOUNT_SETATTR < 0:
        raise OSError(38, f"not written for {os.uname().machine}")
    if _load_libc().unshare(ctypes.c_int(kinds if uid == 0 else kinds | NEWUSER)):
        raise _last_error("unshare")
    if uid:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    scratch, owner = plan["scratch"], plan["uid"] or uid
    _mount_at("", "/", "", MS_REC | MS_PRIVATE)
    _mount_at("tmpfs", scratch, "tmpfs", MS_NOSUID | MS_NODEV, f"size={MAX_ROOT_BYTES},mode=755")
    for path in plan["read"]:
        _bind_path(path, scratch, readonly=True)
    for path in plan["write"]:
        _bind_path(path, scratch, readonly=False)
    for name in DEVICES:
        _bind_path(f"/dev/{name}", scratch, readonly=False)
    _bind_path(f"/proc/{os.getpid()}", scratch, "/proc/self")
    for name in MACHINE_FILES:
        _bind_path(f"/proc/{name}", scratch)
    os.makedirs(scratch + scratch, exist_ok=True)
    size = plan["disk_bytes"]
    bounds = f"size={size},nr_inodes={max(1024, (size >> 20) * FILES_PER_MIB)},mode=700"
    _mount_at(
        "tmpfs", scratch + scratch, "tmpfs", MS_NOSUID | MS_NODEV, f"{bounds},uid={owner},gid={plan['uid'] or gid}"
    )
    _mount_at("", scratch, "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    os.chdir(scratch)
    if _load_libc().syscall(PIVOT_ROOT, b".", b"."):
        raise _last_error("pivot_root")
    if _load_libc().umount2(b".", MNT_DETACH):
        raise _last_error("umount")
    os.chdir(scratch)


def _bind_path(path: str, root: str, target_path: str = "", *, readonly: bool = True) -> None:
    if not os.path.exists(path):
        return
    target = root + (target_path or path)
    if os.path.isdir(path):
        os.makedirs(target, 0o755, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    _mount_at(path, target, "", MS_BIND | MS_REC)
    if readonly:
        attributes = struct.pack("=QQQQ", MS_RDONLY | MS_NOSUID, 0, 0, 0)
        encoded_target = target.encode()
        if _load_libc().syscall(
            MOUNT_SETATTR,
            AT_FDCWD,
            encoded_target,
            ctypes.c_uint(AT_RECURSIVE),
            attributes,
            ctypes.c_size_t(len(attributes)),
        ):
            raise _last_error(f"making {path} read-only")


def _change_user(plan: Plan) -> None:
    """A user of its own, which root alone can give."""
    uid = plan["uid"]
    if os.getuid() or not uid:
        raise OSError(1, plan["no_user"] or "only root may give a process another user")
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.seteuid(uid)  # To look whether it could live so: this one is taken back.
    try:
        for path in plan["needs"]:
            os.listdir(path)
    except OSError as error:
        os.seteuid(0)
        raise OSError(error.errno, f"another user than root cannot read {error.filename}: {error.strerror}") from error
    os.seteuid(0)
    os.setresuid(uid, uid, uid)


def _drop_capabilities() -> None:
    for capability in range(CAPABILITIES):
        _load_libc().prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    _load_libc().prctl(PR_CAP_AMBIENT, CLEAR_ALL, 0, 0, 0)
    if CAPSET >= 0:
        _load_libc().syscall(CAPSET, struct.pack("=II", CAPABILITY_VERSION_3, 0), b"\0" * 24)


def _set_limits(plan: Plan) -> None:
    processes = plan["processes"] + (0 if plan["uid"] and os.getuid() == plan["uid"] else _threads_of_user())
    limits = {
        resource.RLIMIT_AS: plan["memory_bytes"],
        resource.RLIMIT_FSIZE: plan["disk_bytes"],
        resource.RLIMIT_NOFILE: plan["files"],
        resource.RLIMIT_NPROC: processes,
        resource.RLIMIT_CORE: 0,
    }
    for kind, most in limits.items():
        hard = resource.getrlimit(kind)[1]
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (bound, bound))
    with suppress(OSError):  # The kernel ends this one first where memory is short.
        Path("/proc/self/oom_score_adj").write_text("1000")


def _threads_of_user() -> int:
    """Threads that its user has already: the kernel counts them all against the bound."""
    threads = 0
    for entry in Path("/proc").iterdir():
        with suppress(OSError, IndexError):
            if entry.name.isdigit() and entry.stat().st_uid == os.getuid():
                threads += int((entry / "stat").read_text().rpartition(")")[2].split()[17])
    return threads


def _apply_landlock(plan: Plan) -> None:
    own_files = (f"/proc/{os.getpid()}", "/proc/self", *(f"/proc/{name}" for name in MACHINE_FILES))
    devices = [f"/dev/{name}" for name in DEVICES]
    landlock.restrict_paths(
        read=(*plan["read"], *own_files),
        listed=plan["listed"],
        write=(plan["scratch"], *plan["write"], *devices),
        network=plan["network"],
    )


def _apply_seccomp(plan: Plan) -> None:
    # Older kernels let any process of its user be signalled: another tenant's tool, or the executor.
    signals_contained = not plan["report"]["user"] or (
        not plan["report"]["landlock"] and landlock.abi_version() >= landlock.WITH_SIGNALS
    )
    seccomp.install_filter(network=plan["network"], signals=signals_contained)


def _mount_at(source: str, target: str, filesystem: str, flags: int, options: str = "") -> None:
    texts = [text.encode() if text else None for text in (source, target, filesystem)]
    if _load_libc().mount(*texts, ctypes.c_ulong(flags), options.encode() if options else None):
        raise _last_error(f"mounting {source or filesystem} at {target}")


def _load_libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _last_error(action: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{action}: {os.strerror(number)}")

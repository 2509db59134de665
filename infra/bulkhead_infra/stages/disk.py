"""A disk of its own for a mesh, so that it can be full: an ext4 image, mounted. Needs root and loop devices.

In: a file for the image, where to mount it, its size. Out: a mounted disk. The mesh wants 256 MiB free.
"""

import os
import shutil
import subprocess
from pathlib import Path

from bulkhead.testing.mesh_backend import CannotDo

BALLAST = "ballast"
ROUGHLY_BYTES = 8 * 1024 * 1024
TIMEOUT_S = 60


class Disk:
    mount_options = "loop"

    def __init__(self, image: Path, point: Path, size_mib: int) -> None:
        self.image, self.point, self._size_mib = image, point, size_mib

    def open(self) -> None:
        """Make and mount it. Raises CannotDo."""
        self.point.mkdir(parents=True, exist_ok=True)
        self._run("truncate", "-s", f"{self._size_mib}M", self.image)
        self._run("mkfs.ext4", "-q", "-m", "0", self.image)
        self.mount()
        (self.point / "lost+found").rmdir()

    def close(self) -> None:
        """Detach it; the logs stay, for they are looked at when a test has failed."""
        logs = self.point / "logs"
        kept = self.image.with_name("logs-kept")
        if logs.is_dir():
            shutil.copytree(logs, kept, dirs_exist_ok=True)
        self.unmount()
        self.image.unlink(missing_ok=True)
        if kept.is_dir():
            shutil.copytree(kept, logs, dirs_exist_ok=True)

    def mount(self) -> None:
        """Attach the image as it is now. Raises CannotDo."""
        self._run("mount", "-o", self.mount_options, self.image, self.point)

    def unmount(self) -> None:
        """Detach it, however busy."""
        if os.path.ismount(self.point):
            self._run("umount", "--lazy", self.point)

    def fill(self) -> None:
        """Not a byte is left."""
        free = shutil.disk_usage(self.point).free - ROUGHLY_BYTES
        if free > 0:
            self._run("fallocate", "-l", str(free), self.point / BALLAST)
        for size in (65536, 4096):
            # Only the file system knows how much it needs for itself.
            with (self.point / f"{BALLAST}-{size}").open("wb", buffering=0) as rest:
                try:
                    while rest.write(b"\0" * size) == size:
                        pass
                except OSError:
                    continue

    def free(self) -> None:
        """End of `fill`."""
        for path in self.point.glob(f"{BALLAST}*"):
            path.unlink()

    def _run(self, *command: str | Path) -> None:
        words = [str(part) for part in command]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S)  # noqa: S603
            why = done.stderr.strip() if done.returncode else ""
        except (OSError, subprocess.TimeoutExpired) as error:
            why = str(error)
        if why:
            needs = "it needs root, loop devices and mkfs.ext4; leave bulkhead_disk_mib at 0, or use mesh"
            raise CannotDo("processes", "have a disk of its own", f"{words[0]}: {why}", needs)

"""Folders of tools' processes: those of an executor that was killed go at the next start, all others stay."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bulkhead_services.tool_executor.private_folders import make_private_folder, remove_abandoned_folders


def test_folders_of_an_executor_that_is_gone_are_removed_and_no_others(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    module = "bulkhead_services.tool_executor.private_folders"
    made = f"from {module} import make_private_folder; print(make_private_folder('bulkhead-mcp-'))"
    env = {"TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    shown = subprocess.run([sys.executable, "-c", made], env=env, capture_output=True, check=True, text=True).stdout
    gone, own = Path(shown.strip()), Path(make_private_folder("bulkhead-tool-"))
    (gone / "file").write_text("x")
    again = tmp_path / f"bulkhead-tool-{os.getpid()}.1-x"  # The number was given to another process.
    others = [tmp_path / name for name in ("bulkhead-tool-9l_ljxzk", "bulkhead-stack-1.1-x", "somebody-1.1-x")]
    target = tmp_path / "linked"
    for folder in (again, target, *others):
        folder.mkdir()
    (tmp_path / "bulkhead-tool-2147483647.1-y").symlink_to(target)
    assert gone.is_dir() and remove_abandoned_folders() == 2
    assert not gone.exists() and not again.exists()
    assert own.is_dir() and target.is_dir() and all(folder.is_dir() for folder in others)

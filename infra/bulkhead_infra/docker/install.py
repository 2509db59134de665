"""Runs in a build, in a venv with pip: installs a list of pins with their hashes into a folder. Standard library alone.

In: a requirements file, a folder; /run/secrets/pip.conf and /run/secrets/ca.pem when the builder gave them. Out: the
packages, compiled; programs in bin/. An empty list makes an empty folder.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

SECRETS = Path("/run/secrets")


def main() -> int:
    requirements, target = Path(sys.argv[1]), Path(sys.argv[2])
    target.mkdir(parents=True)
    if not requirements.read_text().strip():
        return 0
    environ = dict(os.environ)
    if (conf := SECRETS / "pip.conf").is_file():
        environ["PIP_CONFIG_FILE"] = str(conf)
    if (ca := SECRETS / "ca.pem").is_file():
        environ |= {"PIP_CERT": str(ca), "SSL_CERT_FILE": str(ca)}
    options = "--quiet --disable-pip-version-check --no-cache-dir --no-deps --prefer-binary --require-hashes"
    places = ["--target", str(target), "-r", str(requirements)]
    command = [sys.executable, "-m", "pip", "install", *options.split(), *places]
    code = subprocess.run(command, env=environ, check=False).returncode  # noqa: S603 - arguments of this very file
    shutil.rmtree(target / "bin" / "__pycache__", ignore_errors=True)
    return code


if __name__ == "__main__":
    sys.exit(main())

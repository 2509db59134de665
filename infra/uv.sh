#!/usr/bin/env bash
# infra/uv.sh PYTHON ARGS...: runs the uv of PYTHON's venv; installs it first, as requirements.lock pins it.
# uv reads none of pip's configuration: the package index, certificates and timeout that pip uses are passed on here.
set -euo pipefail
python=$1
shift
uv=$(dirname "$python")/uv
root=$(cd "$(dirname "$0")/.." && pwd)
pin=$(sed -n '/^uv==/,/^    # via/p' "$root/requirements.lock")
version=${pin#uv==}
if [ ! -x "$uv" ] || [ "$("$uv" --version | cut -d' ' -f2)" != "${version%% *}" ]; then
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r /dev/stdin <<<"$pin"
fi
configured=$("$python" -m pip config list)
# of_pip OPTION VARIABLE: from the environment, else from pip's files.
of_pip() { echo "${!2:-$(sed -nE "s/^(global|install)\.$1='(.*)'$/\2/p" <<<"$configured" | tail -1)}"; }
index=${UV_DEFAULT_INDEX:-$(of_pip index-url PIP_INDEX_URL)}
certificates=${SSL_CERT_FILE:-$(of_pip cert PIP_CERT)}
timeout=${UV_HTTP_TIMEOUT:-$(of_pip timeout PIP_DEFAULT_TIMEOUT)}
[ -z "$index" ] || export UV_DEFAULT_INDEX=$index
[ -z "$certificates" ] || export SSL_CERT_FILE=$certificates
[ -z "$timeout" ] || export UV_HTTP_TIMEOUT=$timeout
# The machine's certificates, as pip has them, in place of uv's own: a company's network may have one of its own.
[ -z "$(ls /etc/ssl/certs 2>/dev/null)" ] || export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-true}
# Downloads are shown; the list of everything that was installed is not.
"$uv" "$@" 2> >(grep --line-buffered -vE '^ [-+~] |^Using Python' >&2)

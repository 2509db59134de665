#!/usr/bin/env bash
# A base image from Debian's packages, for networks without a container registry: `infra/bulkhead_infra/docker/base.sh`.
#
# In: BULKHEAD_BASE_TAG (default bulkhead/base:bookworm), DEBIAN_MIRROR, BULKHEAD_CACHE (default ~/.cache/bulkhead),
# BULKHEAD_CA_BUNDLE (default the host's; what programs in the containers trust). Needs root, debootstrap and a Docker
# daemon. Out: the image, and its tag as the only line on standard output; its archive stays in the cache, so that
# the next machine state or daemon gets it within seconds. Where there is a registry, python:3.12-slim does instead.
set -euo pipefail

tag=${BULKHEAD_BASE_TAG:-bulkhead/base:bookworm}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
cache=${BULKHEAD_CACHE:-${XDG_CACHE_HOME:-${HOME:-/var}/.cache}/bulkhead}
ca=${BULKHEAD_CA_BUNDLE:-/etc/ssl/certs/ca-certificates.crt}
docker=${DOCKER:-docker}
suite=bookworm
packages=python3,python3-venv,ca-certificates

say() { echo "$*" >&2; }

"$docker" info >/dev/null 2>&1 || { say "no Docker daemon answers: start dockerd, or give this user the right to use it"; exit 2; }
command -v debootstrap >/dev/null || { say "debootstrap is not installed: apt-get install debootstrap"; exit 2; }
[ -r "$ca" ] || { say "there is no CA bundle $ca: install ca-certificates, or set BULKHEAD_CA_BUNDLE"; exit 2; }

# The name of the archive is a digest of its inputs: another CA bundle or other packages are another base.
print=$( (echo "$suite $packages 1"; cat "$ca") | sha256sum | cut -c1-16)
archive=$cache/base-$suite-$print.tar
mkdir -p "$cache"
# A second build waits and finds it made.
exec 9>"$cache/base.lock"
flock 9
if [ "$("$docker" image inspect --format '{{index .Config.Labels "bulkhead.base"}}' "$tag" 2>/dev/null || true)" = "$print" ]; then
    echo "$tag"
    exit 0
fi
if [ ! -f "$archive" ]; then
    [ "$(id -u)" = 0 ] || { say "debootstrap needs root: run it once with sudo"; exit 2; }
    folder=$(mktemp -d -p "$cache" base.XXXXXX)
    trap 'rm -rf "$folder" "$archive.part"' EXIT
    say "making a base of Debian packages (once, about a minute)"
    debootstrap --variant=minbase --include="$packages" "$suite" "$folder/root" "$mirror" \
        >"$folder/log" 2>&1 || { tail -20 "$folder/log" >&2; say "debootstrap failed; is $mirror reachable?"; exit 1; }
    cp "$ca" "$folder/root/etc/ssl/certs/ca-certificates.crt"
    rm -rf "$folder/root"/var/cache/apt/archives/*.deb "$folder/root"/var/lib/apt/lists/* "$folder/root"/usr/share/doc/* \
        "$folder/root"/usr/share/locale/* "$folder/root"/usr/share/man/*
    tar -C "$folder/root" -c -f "$archive.part" .
    mv "$archive.part" "$archive"
fi
"$docker" import --change "ENV PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8" --change "LABEL bulkhead.base=$print" \
    "$archive" "$tag" >/dev/null
echo "$tag"

#!/usr/bin/env bash
# Images of a release, by digest: built once, pushed, tested, promoted, rolled back (docs/how-to/release-images.md).
set -euo pipefail

usage() {
    cat <<'END'
infra/release/images.sh COMMAND ARGUMENTS

  build VERSION DIR [IMAGE...]   build images of HEAD (all); DIR gets NAME.tar and a bill of materials, NAME.cdx.json
  push VERSION DIR               push them to BULKHEAD_REGISTRY (HOST/PREFIX) and write the LIST, DIR/images.sha256
  test LIST                      pull the images by digest and run tests/e2e/containers on them
  verify LIST                    check its attestation by the workflow `release`, and the tags of its version
  promote LIST ENVIRONMENT       staging; or production, with what staging has: tag the digests, write its list
  rollback LIST ENVIRONMENT      the same with a release that the environment had before

A LIST is a release: a line `SHA256  HOST/PREFIX/NAME:VERSION` for each image. Registries are reached with the login of
`docker login`. `verify`, `promote` and `rollback` ask GitHub through gh about the repository GH_REPO or GITHUB_REPOSITORY.
Exit codes: 0; 1 a program failed, and says why; 2 wrong arguments; 4 refused.
END
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
environments=$root/infra/chart/images
python=${PYTHON:-$root/.venv/bin/python}

fail() { # CODE REASON REMEDY
    echo "images.sh: $2: $3" >&2
    exit "$1"
}

digest_at() { # PLACE
    skopeo inspect --no-tags --format '{{.Digest}}' "docker://$1"
}

build() { # VERSION DIR [IMAGE...]
    local version=$1 folder=$2 name pins
    mkdir "$folder" # What an earlier build left there would be pushed with it.
    if [ -n "${BULKHEAD_BASE_IMAGE:-}" ]; then
        # All images stand on one base, whatever its tag names a moment later.
        docker pull --quiet "$BULKHEAD_BASE_IMAGE" >&2
        BULKHEAD_BASE_IMAGE=$(docker image inspect --format '{{index .RepoDigests 0}}' "$BULKHEAD_BASE_IMAGE")
        export BULKHEAD_BASE_IMAGE
    fi
    BULKHEAD_IMAGES=bulkhead "$python" -m bulkhead_infra.docker.images --tag "$version" --revision HEAD "${@:3}" >&2
    # What pip installs into each of them, as the lock pins it.
    "$python" - "$folder" "${@:3}" <<'END'
import pathlib, sys
from bulkhead_infra.docker.image_contents import IMAGES, registry_name, requirements
for name in sys.argv[2:] or IMAGES:
    pathlib.Path(sys.argv[1], f"{registry_name(name)}.pins").write_text("".join(requirements(name)))
END
    for pins in "$folder"/*.pins; do
        name=$(basename "$pins" .pins)
        "$python" -W ignore -m cyclonedx_py requirements --pyproject "$root/pyproject.toml" -o "${pins%.pins}.cdx.json" "$pins"
        docker save --output "${pins%.pins}.tar" "bulkhead/$name:$version"
        rm "$pins"
    done
}

push() { # VERSION DIR
    local version=$1 folder=$2 archive place taken=0
    [ -n "${BULKHEAD_REGISTRY:-}" ] || fail 2 "BULKHEAD_REGISTRY is not set" "name HOST/PREFIX, such as ghcr.io/OWNER/bulkhead"
    local archives=("$folder"/*.tar)
    [ -f "${archives[0]}" ] || fail 2 "$folder has no images" "make them with \`build $version $folder\`"
    for archive in "${archives[@]}"; do
        digest_at "$BULKHEAD_REGISTRY/$(basename "$archive" .tar):$version" >/dev/null 2>&1 && taken=$((taken + 1))
    done
    # A push that was cut off may be repeated; a version that is there is never replaced.
    [ "$taken" -lt ${#archives[@]} ] || fail 4 "$BULKHEAD_REGISTRY has $version already" "a version is built once: take the next"
    for archive in "${archives[@]}"; do
        place=$BULKHEAD_REGISTRY/$(basename "$archive" .tar):$version
        skopeo copy --quiet --digestfile "$folder/digest" "docker-archive:$archive" "docker://$place"
        echo "$(sed 's/^sha256://' "$folder/digest")  $place"
    done >"$folder/images.sha256.part"
    rm "$folder/digest"
    mv "$folder/images.sha256.part" "$folder/images.sha256"
    cat "$folder/images.sha256"
}

test_images() { # LIST
    local hex place image tag
    tag=release-$(sha256sum "$1" | cut -c -12)
    while read -r hex place; do
        image=${place%:*}@sha256:$hex
        docker pull --quiet "$image" >&2
        docker tag "$image" "bulkhead/$(basename "${place%:*}"):$tag"
    done <"$1"
    # With a tag that is given the tests build nothing.
    export BULKHEAD_TEST_TAG=$tag BULKHEAD_TAG=$tag BULKHEAD_IMAGES=bulkhead BULKHEAD_STRICT_SKIPS=1
    cd "$root" && "$python" -m pytest -q tests/e2e/containers
}

verify() { # LIST
    local hex place version list digest repository=${GH_REPO:-${GITHUB_REPOSITORY:-}}
    [ -n "$repository" ] || fail 2 "GH_REPO is not set" "name the repository of the release, OWNER/NAME"
    version=$(sed 's/.*://' "$1" | sort -u)
    if ! [[ $version =~ ^v[0-9A-Za-z._-]+$ ]] || grep -Evq '^[0-9a-f]{64}  [a-z0-9][a-z0-9._:/-]*/[a-z0-9-]+:[^:/]+$' "$1"; then
        fail 4 "$1 is no list of images of one version" "take images.sha256 of the release at GitHub"
    fi
    # The job that attests runs after the tests passed, and has no code of the release beside it.
    gh attestation verify "$1" --repo "$repository" --source-ref "refs/tags/$version" --deny-self-hosted-runners \
        --signer-workflow "$repository/.github/workflows/release.yml" >&2 ||
        fail 4 "$1 is not attested" "gh says why above; take images.sha256 of a release whose workflow ended well"
    while read -r hex place; do
        digest=$(digest_at "$place") || fail 1 "$place cannot be read" "skopeo says why above"
        [ "$digest" = "sha256:$hex" ] || fail 4 "$place is $digest, not sha256:$hex" "ask who moved the tag, and release anew"
    done <"$1"
    echo "$version is tested and attested:"
    cat "$1"
    for list in "$environments"/*.sha256; do
        [ ! -f "$list" ] || echo "$(basename "$list" .sha256) has $(sed -n '1s/.*://p' "$list")"
    done
}

deploy() { # LIST ENVIRONMENT
    local hex place
    while read -r hex place; do
        skopeo copy --quiet --all --preserve-digests "docker://${place%:*}@sha256:$hex" "docker://${place%:*}:$2"
    done <"$1"
    cp "$1" "$environments/$2.sha256"
    echo "$2 has $(sed -n '1s/.*://p' "$1"); \`make render\`, commit, and upgrade the chart" >&2
}

promote() { # LIST ENVIRONMENT
    verify "$1"
    if [ "$2" = production ] && ! cmp -s "$1" "$environments/staging.sha256"; then
        fail 4 "staging has another release" "promote this one to staging first"
    fi
    deploy "$1" "$2"
}

rollback() { # LIST ENVIRONMENT
    local commit list=infra/chart/images/$2.sha256
    verify "$1"
    for commit in $(git -C "$root" log --format=%H -- "$list"); do
        if git -C "$root" show "$commit:$list" 2>/dev/null | cmp -s - "$1"; then
            deploy "$1" "$2"
            return
        fi
    done
    fail 4 "$2 never had this release" "\`git log -p $list\` shows what it had; a new one is promoted"
}

command=${1:-}
case "$command $#" in
    --help\ * | -h\ *) usage ;;
    push\ 3 | build\ [3-9] | build\ ??) "$@" ;;
    test\ 2 | verify\ 2 | promote\ 3 | rollback\ 3)
        [ -f "$2" ] || fail 2 "there is no file $2" "name the images.sha256 of a release"
        [ $# = 2 ] || [[ $3 =~ ^(staging|production)$ ]] || fail 2 "there is no environment $3" "staging or production"
        if [ "$command" = test ]; then test_images "$2"; else "$@"; fi
        ;;
    *)
        usage >&2
        exit 2
        ;;
esac

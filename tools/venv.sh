#!/bin/sh
# The project's environment: makes .venv, completes it, or finds that it is complete.
#
#   tools/venv.sh demo         the library and its command line
#   tools/venv.sh dev          every extra, the tests, the linters
#   tools/venv.sh dev raft     and raftos, which only installs without its dependencies
#
# Invariant: a stamp (.venv/.demo, .dev, .raft) is written after its install has succeeded and holds
# the project's path; .venv/.busy stands while something is being installed. So an interrupted
# install, a moved project or another $PYTHON leads to a fresh environment, never to half of one.
set -eu
cd "$(dirname "$0")/.."

venv=.venv
project=$(pwd -P)

# Settings of the user's that would send packages elsewhere. Those that say where packages come
# from, and how they are trusted, stay. PIP_USER is set, not unset: a configuration file may say so.
unset PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX PIP_ROOT PIP_NO_DEPS PIP_DRY_RUN PIP_CONSTRAINT \
      PIP_REQUIREMENT PIP_EDITABLE PIP_REQUIRE_HASHES PIP_IGNORE_INSTALLED PIP_PYTHON || true
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

say() { echo "venv: $*" >&2; }

# Version managers leave shims on the PATH that exist and fail: only running it tells.
runs() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11, 4))' </dev/null >/dev/null 2>&1; }

which_python() { "$1" -c 'import sys; print(sys.version_info[:3], sys.base_prefix)'; }

find_python() {
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11; do
        if runs "$candidate"; then echo "$candidate"; return 0; fi
        if [ "$candidate" = "${PYTHON:-}" ]; then
            say "PYTHON=$PYTHON does not run, or is older than 3.11.4; looking for another"
        fi
    done
    return 1
}

usable() { # the environment that is there
    [ ! -e "$venv/.busy" ] && runs "$venv/bin/python" || return 1
    "$venv/bin/python" -m pip --version </dev/null >/dev/null 2>&1 || return 1
    for stamp in "$venv/.demo" "$venv/.dev"; do
        if [ -e "$stamp" ] && [ "$(cat "$stamp")" != "$project" ]; then return 1; fi
    done
    if [ -n "${PYTHON:-}" ] && runs "$PYTHON"; then
        [ "$(which_python "$PYTHON")" = "$(which_python "$venv/bin/python")" ] || return 1
    fi
}

create() {
    rm -rf "$venv"
    mkdir "$venv"
    : > "$venv/.busy"
    python=$(find_python) || python=
    if [ -n "$python" ]; then
        say "making $venv with $("$python" -V 2>&1)"
        if "$python" -m venv "$venv" </dev/null >"$venv/.log" 2>&1; then return 0; fi
    fi
    if uv --version >/dev/null 2>&1; then
        say "making $venv with uv"
        if uv venv --quiet --seed --allow-existing --python "${python:->=3.11.4}" "$venv"; then return 0; fi
    fi
    if [ -z "$python" ]; then
        say "no Python 3.11.4 or newer found: install one (or uv), or say make PYTHON=/path/to/python3"
    else
        say "$python cannot make environments: install its venv package (Debian: python3-venv), or uv"
    fi
    return 1
}

fresh() { # fresh STAMP: installed here, from these very files
    [ -e "$1" ] && [ ! pyproject.toml -nt "$1" ] && [ ! constraints.txt -nt "$1" ]
}

install() { # install STAMP PIP-ARGUMENTS...
    stamp=$1; shift
    : > "$venv/.busy"
    "$venv/bin/python" -m pip install --quiet "$@" </dev/null
    echo "$project" > "$stamp"
    rm -f "$venv/.busy"
}

if ! usable; then create; rm -f "$venv/.busy"; fi
for wanted in "$@"; do
    case $wanted in
    demo)
        if fresh "$venv/.demo" || fresh "$venv/.dev"; then continue; fi
        say "installing Chronik and its command line (once)"
        install "$venv/.demo" --constraint constraints.txt --editable ".[cli]" ;;
    dev)
        if fresh "$venv/.dev"; then continue; fi
        say "installing Chronik, its extras and the development tools (once)"
        install "$venv/.dev" --constraint constraints.txt --editable ".[dev]" ;;
    raft)
        if [ -e "$venv/.raft" ]; then continue; fi
        install "$venv/.raft" --no-deps raftos==0.2.6 ;;
    *)
        say "unknown: $wanted (use demo, dev, raft)"; exit 2 ;;
    esac
done

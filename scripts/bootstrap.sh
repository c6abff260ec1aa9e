#!/usr/bin/env bash
# Set up this tree with only Python >= 3.11: uv from PATH, or a private one that pip brings. Called by the Makefile.
#
#   bootstrap.sh venv DIRECTORY    make a virtual environment, unless a working one is there
#   bootstrap.sh uv ARGUMENT...    uv, looking where pip is configured to look
#   bootstrap.sh run COMMAND...    a command that finds that uv on its PATH
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
private="$root/.cache/uv"
python="${PYTHON:-python3}"
# A package without a wheel for this Python may be built by a make of its own, which our make's flags would break.
unset MAKEFLAGS MFLAGS

fail() {
    printf 'holdfast: %s\n' "$*" >&2
    exit 1
}

require_python() {
    command -v "$python" >/dev/null || fail "there is no $python on PATH; holdfast needs Python 3.11 or newer."
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail \
        "$python is $("$python" --version 2>&1), and holdfast needs Python 3.11 or newer;" \
        "name another one, for example: make test PYTHON=python3.12"
}

make_venv() {
    local directory="$1"
    if "$directory/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        return
    fi
    require_python
    "$python" -m venv --clear --without-pip "$directory"
}

works() {
    "$1" --version >/dev/null 2>&1
}

bring_uv() {
    if works uv; then
        return
    fi
    if ! works "$private/bin/uv"; then
        require_python
        "$python" -m venv --clear "$private" || fail \
            "$python cannot make a virtual environment with pip; install your system's venv package, or uv."
        "$private/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
            --requirement "$root/requirements/uv.txt"
    fi
    PATH="$PATH:$private/bin"
    export PATH
}

# The value pip itself would use: its environment wins over its files, and `install` over `global`.
pip_setting() {
    local section value
    for section in ':env:' install global; do
        value="$(sed -n "s/^$section\.$1='\(.*\)'\$/\1/p" <<<"$pip_settings" | sed 's/\\n/ /g')"
        if [[ -n "$value" ]]; then
            printf '%s' "$value"
            return
        fi
    done
}

# uv reads none of pip's settings, so where packages come from is handed over; what is set for uv already stays.
translate() {
    local pip_name="$1" uv_name="$2" separator="${3:- }" value
    value="$(pip_setting "$pip_name")"
    if [[ -n "$value" && -z "${!uv_name+set}" ]]; then
        export "$uv_name=${value// /$separator}"
    fi
}

follow_pip() {
    local candidate pip_settings=""
    for candidate in "$private/bin/python" "$python"; do
        if pip_settings="$("$candidate" -m pip --disable-pip-version-check config list 2>/dev/null)"; then
            break
        fi
    done
    translate index-url UV_DEFAULT_INDEX
    translate extra-index-url UV_INDEX
    translate find-links UV_FIND_LINKS ,
    translate trusted-host UV_INSECURE_HOST
    translate no-index UV_NO_INDEX
    translate cert SSL_CERT_FILE
    # pip compares all its indexes; every package here is held by its hash, so comparing them is safe.
    export UV_INDEX_STRATEGY="${UV_INDEX_STRATEGY:-unsafe-best-match}"
}

verb="${1:-}"
shift || true
case "$verb" in
venv)
    make_venv "$1"
    ;;
uv)
    bring_uv
    follow_pip
    exec uv "$@"
    ;;
run)
    bring_uv
    follow_pip
    exec "$@"
    ;;
*)
    fail "usage: bootstrap.sh venv DIRECTORY | uv ARGUMENT... | run COMMAND..."
    ;;
esac

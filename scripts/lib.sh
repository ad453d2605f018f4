# Shared by scripts/demo and scripts/check: a Python, a virtual environment, readable output.
# Sourced, not run. Works with bash 3.2 and newer.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "$*"; }
die() {
    printf '%s\n' "$*" >&2
    exit 1
}

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# The first Python of at least 3.11 on PATH.
find_python() {
    local candidate
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python; do
        if new_enough "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    die "Python 3.11 or newer is needed and not on PATH (Debian: apt-get install python3 python3-venv)"
}

may_apt() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null
}

apt_install() {
    say "installing $* with apt"
    {
        apt-get update && DEBIAN_FRONTEND=noninteractive \
            apt-get install --yes --no-install-recommends "$@"
    } >"$root/.apt.log" 2>&1 || {
        tail -n 5 "$root/.apt.log" >&2
        return 1
    }
}

# make_venv DIRECTORY: a virtual environment there; an existing one that works is kept.
make_venv() {
    local venv=$1 python
    if new_enough "$venv/bin/python" && "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        return
    fi
    python=$(find_python) || exit 1
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        if may_apt; then
            apt_install python3-venv || die "python3-venv could not be installed, see above"
        fi
        "$python" -c 'import ensurepip, venv' 2>/dev/null ||
            die "$python has no venv module (Debian: apt-get install python3-venv)"
    fi
    rm -rf "$venv"
    "$python" -m venv "$venv" || die "no virtual environment could be made in $venv"
}

# pip_install VENV ARGUMENTS...
pip_install() {
    local venv=$1
    shift
    "$venv/bin/python" -m pip install --quiet --quiet --disable-pip-version-check "$@" ||
        die "pip could not install what is needed; it said why above"
}

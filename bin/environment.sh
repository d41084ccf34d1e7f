# shellcheck shell=sh
# Sourced by the programs beside it: makes the clone's own virtual environment, .venv, and installs what they need besides.

say() {
    printf 'stompbridge: %s\n' "$*" >&2
}

die() {
    say "$@"
    exit 1
}

# The first Python that is new enough.
find_python() {
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    found=$(python3 -c 'import platform; print("python3 is " + platform.python_version())' 2>/dev/null) ||
        found="there is no python3 in PATH"
    die "Python 3.11 or later is needed; $found"
}

# What an installation depends on: the files that describe it, the Python it is for, and where the clone is.
fingerprint() {
    cat "$root/setup.cfg" "$root/pyproject.toml" | cksum
    readlink -f "$root/.venv/bin/python"
    printf '%s\n' "$root"
}

# is_ready STAMP: whether the environment is as STAMP's last installation left it.
is_ready() {
    [ -x "$root/.venv/bin/python" ] && [ -f "$1" ] && [ "$(cat "$1")" = "$(fingerprint)" ]
}

# Whether .venv was made for another place, so that the paths in its programs are wrong.
is_moved() {
    for other in "$root"/.venv/.stamp-*; do
        if [ -f "$other" ] && [ "$(tail -n 1 "$other")" != "$root" ]; then
            return 0
        fi
    done
    return 1
}

make_venv() {
    python=$(find_python) || exit 1
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        die "$python cannot make virtual environments. On Debian and Ubuntu: apt-get install python$version-venv"
    fi
    "$python" -m venv --clear "$root/.venv" >&2 || die "cannot make a virtual environment in $root/.venv"
}

# ensure_environment NAME [EXTRAS]: installs the project with "[extras]" into .venv, unless that is done already.
ensure_environment() {
    stamp=$root/.venv/.stamp-$1
    is_ready "$stamp" && return
    # Two that start at once: the second waits and finds the work done.
    exec 9<"$root/setup.cfg"
    if command -v flock >/dev/null 2>&1 && ! flock -n 9; then
        say "another start is setting up $root/.venv; waiting for it"
        flock 9
    fi
    if ! is_ready "$stamp"; then
        say "setting up $root/.venv (once, and after changes of setup.cfg)"
        if [ -z "${HOME:-}" ]; then
            export PIP_NO_CACHE_DIR=1
        fi
        if is_moved || ! "$root/.venv/bin/python" -m pip --version >/dev/null 2>&1; then
            make_venv
        fi
        "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
            --editable "$root${2:-}" >&2 || die "the installation failed; nothing was started"
        fingerprint >"$stamp"
    fi
    exec 9<&-
}

have() {
    PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null 2>&1
}

# Whether the program of a Debian package is there, wherever it came from.
has_package() {
    case $1 in
        chromium) have chromium || have chromium-browser || have google-chrome ;;
        nodejs) have node ;;
        *) have "$1" ;;
    esac
}

# install_packages PACKAGE...: by apt-get, where it may be done, those whose programs are missing.
install_packages() {
    missing=
    for package in "$@"; do
        has_package "$package" || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    as_root=
    if [ "$(id -u)" != 0 ]; then
        as_root="sudo -n"
    fi
    if ! have apt-get || ! $as_root true 2>/dev/null; then
        say "not installed, and cannot be installed from here:$missing"
        return 0
    fi
    say "installing$missing"
    # Servers that come with packages stay down; what needs one starts its own.
    policy=/usr/sbin/policy-rc.d
    (
        if [ ! -e "$policy" ]; then
            trap '$as_root rm -f "$policy"' EXIT
            printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
            $as_root chmod 755 "$policy"
        fi
        $as_root apt-get update -qq >&2
        # shellcheck disable=SC2086 # one word for each package
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $missing >&2
    ) || say "apt-get could not install all of:$missing"
}

# install_javascript FOLDER: the packages of its package-lock.json, unless they are there already.
install_javascript() {
    if ! have npm || [ ! -f "$1/package-lock.json" ]; then
        return 0
    fi
    if [ "$1/node_modules/.package-lock.json" -nt "$1/package-lock.json" ]; then
        return 0
    fi
    say "installing the JavaScript packages of ${1#"$root/"}"
    if [ -z "${HOME:-}" ]; then
        export npm_config_cache="$root/.venv/npm-cache"
    fi
    npm ci --prefix "$1" --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error >&2 ||
        say "npm could not install the JavaScript packages of ${1#"$root/"}"
    # npm keeps an up-to-date marker's old time.
    touch -c "$1/node_modules/.package-lock.json"
}

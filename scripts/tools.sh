# What scripts/test needs, sourced by it: finds it, installs it where it may, and says the command where it may not.
# Debian packages only as root; Python and Node packages into .test-env, which git ignores.

MISSING=()

# need WHAT DEBIAN_PACKAGES CHECK...: remembers the packages when the check fails.
need() {
    local what="$1" packages="$2"
    shift 2
    "$@" >/dev/null 2>&1 && return 0
    echo "missing: $what"
    # shellcheck disable=SC2206
    MISSING+=($packages)
}

has_python_venv() {
    python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))'
}

has_node() {
    node -e 'process.exit(Number(process.versions.node.split(".")[0]) < 18 ? 1 : 0)'
}

# scripts/postgres knows where to look, and which versions will do.
has_postgres() {
    scripts/postgres bin initdb && scripts/postgres bin pg_basebackup && scripts/postgres bin psql
}

has_pgbouncer() {
    PATH="$PATH:/usr/sbin:/usr/local/sbin" pgbouncer --version
}

# The packages bring servers that start by themselves; the tests start their own, and nobody asked for others.
keep_servers_from_starting() {
    local folder=/etc/postgresql-common/createcluster.d
    if [[ " ${MISSING[*]} " == *" postgresql "* ]] && [ ! -e /var/lib/postgresql ]; then
        mkdir -p "$folder"
        echo "create_main_cluster = false" >"$folder/bellwire-tests.conf"
    fi
}

stop_what_was_installed() {
    [[ " ${MISSING[*]} " == *" pgbouncer "* ]] || return 0
    if [ -d /run/systemd/system ]; then systemctl disable --now pgbouncer >/dev/null 2>&1 || true; fi
    [ ! -x /etc/init.d/pgbouncer ] || /etc/init.d/pgbouncer stop >/dev/null 2>&1 || true
}

install_debian_packages() {
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "Install what is missing, then run this again:"
        echo "  sudo apt-get update && sudo apt-get install -y ${MISSING[*]}"
        return 1
    fi
    echo "installing: ${MISSING[*]}"
    apt-get update -qq || return 1
    keep_servers_from_starting || return 1
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${MISSING[@]}" >/dev/null || return 1
    stop_what_was_installed
}

find_tools() {
    MISSING=()
    need "a C compiler (for the bundled SQLite and the cryptography library)" "build-essential" cc --version
    need "Python 3.10 or newer with venv" "python3 python3-venv" has_python_venv
    need "Node.js 18 or newer" "nodejs" has_node
    need "npm" "npm" npm --version
    need "curl" "curl" curl --version
    need "PostgreSQL 15 or newer (server and client programs)" "postgresql" has_postgres
    need "PgBouncer" "pgbouncer" has_pgbouncer
}

prepare_rust() {
    if ! command -v cargo >/dev/null; then
        echo "missing: a Rust toolchain (cargo). Install it with rustup, see the page \"Install\" of the Rust project."
        return 1
    fi
    local component
    for component in rustfmt clippy; do
        "cargo-${component/rustfmt/fmt}" --version >/dev/null 2>&1 && continue
        echo "missing: $component"
        if command -v rustup >/dev/null; then
            rustup component add "$component" || return 1
        else
            echo "Install it with your Rust toolchain: rustup component add $component"
            return 1
        fi
    done
}

# stamped FILE HASHED_FILES...: whether FILE holds the hash of the others.
stamped() {
    local stamp="$1"
    shift
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(cat "$@" | sha256sum)" ]
}

prepare_python() {
    local folder="$ENVIRONMENT/venv" wanted="$ROOT/tests/requirements.txt"
    stamped "$folder/.stamp" "$wanted" && return 0
    echo "installing Python packages into .test-env/venv"
    rm -rf "$folder"
    python3 -m venv "$folder" || return 1
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check -r "$wanted" || return 1
    cat "$wanted" | sha256sum >"$folder/.stamp"
}

prepare_node() {
    local folder="$ENVIRONMENT/node"
    if ! stamped "$folder/.stamp" tests/node/package.json tests/node/package-lock.json; then
        echo "installing Node packages into .test-env/node"
        rm -rf "$folder"
        mkdir -p "$folder"
        cp tests/node/package.json tests/node/package-lock.json "$folder/"
        (cd "$folder" && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error) || return 1
        cat tests/node/package.json tests/node/package-lock.json | sha256sum >"$folder/.stamp"
    fi
    # Node looks for packages beside the file that imports them.
    ln -sfn ../../.test-env/node/node_modules tests/node/node_modules
}

prepare_tools() {
    find_tools
    if [ ${#MISSING[@]} -gt 0 ]; then
        install_debian_packages || return 1
        find_tools
        if [ ${#MISSING[@]} -gt 0 ]; then
            echo "still missing after the install: ${MISSING[*]}"
            return 1
        fi
    fi
    # Called where a failure does not end the script: every step says itself that it failed.
    prepare_rust && prepare_python && prepare_node || return 1
    echo "rust   $(cargo --version)"
    echo "python $("$PYTHON" --version)"
    echo "node   $(node --version)"
    echo "$("$(scripts/postgres bin postgres)" --version)"
}

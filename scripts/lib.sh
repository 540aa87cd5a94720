# shellcheck shell=bash
# Shared by the scripts of this directory: messages, Debian packages, the Rust version. Sourced.
# shellcheck disable=SC2034 # used there

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
BUILD_PACKAGES=(clang gcc make pkg-config libelf-dev zlib1g-dev)

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() {
    say "$@"
    exit 1
}

# need_packages PACKAGE…: installs those that are missing, or says what to type.
need_packages() {
    local missing
    if ! command -v apt-get >/dev/null; then
        say "not a Debian machine; going on as if it had the likes of: $*"
        return
    fi
    missing=$(comm -23 <(printf '%s\n' "$@" | sort) <(installed "$@" | sort))
    [ -n "$missing" ] || return 0
    missing=${missing//$'\n'/ }
    [ "$(id -u)" = 0 ] || die "packages are missing; type: sudo apt-get install $missing"
    say "installing Debian packages: $missing"
    apt_get update -qq
    # shellcheck disable=SC2086 # one word a package
    apt_get install -qq --no-install-recommends $missing
}

# installed PACKAGE…: prints those that are.
installed() {
    dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null | sed -n 's/^installed //p'
}

# apt_get ARGUMENT…: says nothing unless it fails.
apt_get() {
    local output
    output=$(DEBIAN_FRONTEND=noninteractive apt-get -y "$@" </dev/null 2>&1) ||
        die "failed to apt-get $*: $output"
}

# need_rust: checks that there is a cargo and that it is as new as Cargo.toml asks for.
need_rust() {
    local needed found
    PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
    found=$(cargo --version 2>/dev/null | cut -d' ' -f2) || found=
    if ! printf '%s\n' "$needed" "$found" | sort -VC; then
        say "Rust $needed or newer is needed, and here is ${found:-none}; type:"
        say "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y"
        exit 1
    fi
}

# shellcheck shell=bash
# Shared by the scripts of this directory: messages, Debian packages, Rust and who builds. Sourced.
# shellcheck disable=SC2034 # used there

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
BUILD_PACKAGES=(ca-certificates clang gcc make pkg-config libelf-dev zlib1g-dev)

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
    apt_update
    # shellcheck disable=SC2086 # one word a package
    say "installing Debian packages: $missing$(download_size $missing)"
    # shellcheck disable=SC2086
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

# apt_update: reads the lists of packages anew, once in a run.
apt_update() {
    if [ -z "${apt_updated-}" ] && command -v apt-get >/dev/null; then
        apt_get update -qq
        apt_updated=1
    fi
}

# download_size PACKAGE…: prints what apt says of it, where it says anything.
download_size() {
    LC_ALL=C apt-get install --no-install-recommends --assume-no "$@" 2>/dev/null |
        sed -nE 's/^Need to get (.*) of archives.*/ (a download of \1)/p'
}

# need_rust: sees to a cargo that is as new as Cargo.toml asks for. There is never a second Rust: where
# one is found that is too old it says what to type; only where there is none Debian's, rust_package,
# joins BUILD_PACKAGES, which need_packages installs.
need_rust() {
    local found
    rust_needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
    find_rust
    if has_rust; then
        rust_package=$(of_debian "$(type -P cargo)")
    elif as_builder rustup --version >/dev/null 2>&1; then
        die "Rust $rust_needed or newer is needed; type: rustup default stable && rustup update stable"
    else
        found=$(cargo --version 2>/dev/null) || found=none
        [ "$(id -u)" != 0 ] || apt_update
        rust_package=$(debian_rust)
        if [ -z "$rust_package" ]; then
            say "Rust $rust_needed or newer is needed, and here is $found; type:"
            say "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y"
            exit 1
        fi
        [ "$found" = none ] ||
            die "Rust $rust_needed or newer is needed, and here is $found; to replace it type: sudo apt-get install $rust_package"
        BUILD_PACKAGES+=("$rust_package")
    fi
}

# find_rust: looks where rustup puts Rust, and decides who builds. Under sudo that is the user who
# typed it, if the checkout is theirs or the only Rust: what runs as root need not be built as root.
find_rust() {
    local own=no theirs=no path=$PATH
    builder=
    PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$path
    if [ "$(id -u)" != 0 ] || [ "${SUDO_USER:-root}" = root ]; then
        return
    fi
    ! has_rust || own=yes
    builder=$SUDO_USER
    builder_home=$(getent passwd "$SUDO_USER" | cut -d: -f6)
    PATH=$builder_home/.cargo/bin:$path
    ! has_rust || theirs=yes
    case $(stat -c %U "$root"),$own,$theirs in
    "$SUDO_USER",no,* | *,no,yes | "$SUDO_USER",*,yes) ;;
    *)
        builder=
        PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$path
        return
        ;;
    esac

    runuser -u "$builder" -- test -r "$root/Cargo.toml" ||
        die "the Rust here is $builder's, who cannot read $root; move it to where they can"
    # For the tests, which cargo runs as root: what they need has been built before.
    export CARGO_HOME=$builder_home/.cargo RUSTUP_HOME=$builder_home/.rustup
    mkdir -p "$target"
    # What root left there, as tests do, and former versions of these scripts. scripts/test-fresh has machines in it.
    find "$target" -xdev -path "$target/fresh" -prune -o ! -user "$builder" -exec chown -h "$builder:" {} +
}

# as_builder COMMAND…: runs it as the user under sudo, if they build, and else as it is.
as_builder() {
    if [ -n "$builder" ]; then
        runuser -u "$builder" -- env HOME="$builder_home" "$@"
    else
        command "$@"
    fi
}

cargo() { as_builder cargo "$@"; }

# has_rust: is there a cargo that is new enough?
has_rust() { is_new "$(cargo --version 2>/dev/null | cut -d' ' -f2)"; }

is_new() { [[ $1 =~ ^[0-9] ]] && printf '%s\n' "$rust_needed" "$1" | sort -VC; }

# of_debian FILE: prints the package that it is from, if it is from one.
of_debian() { dpkg-query -S "$1" 2>/dev/null | cut -d: -f1 || true; }

# debian_rust: prints which of Debian's packages of cargo is new enough. `cargo-web` is in the suites
# that are supported, for the browsers that are built with it.
debian_rust() {
    local package
    command -v apt-cache >/dev/null || return 0
    apt-cache show cargo >/dev/null 2>&1 || die "apt knows no packages; type: sudo apt-get update"
    for package in cargo cargo-web; do
        if is_new "$(LC_ALL=C apt-cache policy "$package" | sed -n 's/^ *Candidate: //p')"; then
            echo "$package"
            return
        fi
    done
}

# build_profiler: builds target/release/profiler, and says what to expect the first time.
build_profiler() {
    [ -e "$target/release/profiler" ] ||
        say "building the profiler and the libraries it is made of, once: at most 10 minutes on two idle CPUs"
    cargo build --release --locked --manifest-path "$root/Cargo.toml"
}

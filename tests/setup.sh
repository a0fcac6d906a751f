# shellcheck shell=bash
# Installs what a step of tests/run needs, when it is not there yet. Sourced.
#
# Every function here leaves 0 when the thing is there. Otherwise it sets
# $reason and leaves 1 when this machine or user cannot have it (the step's
# tests are skipped), 2 when an installation was tried and went wrong (failed).

# Wants an own build of a tool only where the version pinned here is missing.
readonly BPF_LINKER=0.13.0
readonly CARGO_DENY=0.20.2
# The compiler with its source, and LLVM with the BPF target: what the BPF
# object is built with, and what bpf-linker is built against.
readonly BPF_PACKAGES=(
    rustc-web cargo-web rust-web-src clang-22 llvm-22-dev libpolly-22-dev
    zlib1g-dev libzstd-dev libxml2-dev libffi-dev libedit-dev
)

# The proxy that the second door's example is for, and that SAs are taken over from.
readonly KAMAILIO=(kamailio kamailio-utils-modules kamailio-extra-modules kamailio-ims-modules)

# The libraries that our engines are measured beside (benches, feature peers). What
# comes out of a crate, aws-lc, wants no more than the C compiler of need_rust.
readonly PEERS=(gcc libc6-dev libipsec-mb-dev libssl-dev)

# need_packages PACKAGE...: Debian packages.
need_packages() {
    local missing=() p
    if ! command -v dpkg-query apt-get >/dev/null; then
        reason="needs Debian's packages $*"
        return 1
    fi
    for p in "$@"; do
        [[ $(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null) == installed ]] || missing+=("$p")
    done
    ((${#missing[@]} == 0)) && return 0
    if ((EUID != 0)); then
        reason="needs root to install the packages ${missing[*]}"
        return 1
    fi
    note "installing ${missing[*]}"
    # The package lists are fetched only when they turn out to be missing or old.
    if apt-cache show "${missing[@]}" >/dev/null 2>&1; then
        logged 1200 apt-install apt_install "${missing[@]}" && return 0
    fi
    logged 300 apt-update apt-get update && logged 1200 apt-install apt_install "${missing[@]}" && return 0
    reason="apt-get could not install ${missing[*]}"
    return 2
}

# A package's daemon is not started: the tests start what they need.
apt_install() {
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends --no-remove \
        -o DPkg::Lock::Timeout=300 "$@"
}

# need_program PROGRAM PACKAGE: a program, from a package where it is missing.
need_program() {
    command -v "$1" >/dev/null || need_packages "$2"
}

# need_rust: cargo, and a linker for it. Rust itself is the one thing expected.
need_rust() {
    # A shell that has not read the user's profile does not know rustup's folder.
    command -v cargo >/dev/null || PATH=$HOME/.cargo/bin:$PATH
    if ! command -v cargo >/dev/null; then
        reason="there is no cargo: install Rust first"
        return 2
    fi
    # Debian's cargo, installed for the BPF object, must not come before it.
    PATH=$tools/bin:$(dirname "$(command -v cargo)"):$PATH
    command -v cc >/dev/null || need_packages gcc libc6-dev
}

# need_component PROGRAM COMPONENT: a part of the Rust toolchain.
need_component() {
    cargo "$1" --version >/dev/null 2>&1 && return 0
    if ! command -v rustup >/dev/null; then
        reason="this Rust has no cargo $1, and no rustup to add it"
        return 1
    fi
    note "adding Rust's $2"
    logged 300 "rustup-$2" rustup component add "$2" && return 0
    reason="rustup could not add $2"
    return 2
}

# need_tool NAME VERSION [CARGO-INSTALL-OPTION...]: a program out of a crate, kept
# under the target directory. Unoptimised ones would do; level 1 is the one that
# most of their dependencies compile fastest for without being slow to use.
need_tool() {
    local name=$1 version=$2
    shift 2
    [[ $("$name" --version 2>/dev/null) == "$name $version" ]] && return 0
    note "building $name $version"
    logged 1500 "install-$name" env -u CARGO_TARGET_DIR \
        CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
        CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=false \
        cargo install "$name" --version "$version" --locked --root "$tools" "$@" && return 0
    reason="cargo could not build $name $version"
    return 2
}

# need_bpf_toolchain: everything that ebpf/build wants.
need_bpf_toolchain() {
    need_packages "${BPF_PACKAGES[@]}" || return
    LLVM_PREFIX=/usr/lib/llvm-22 PATH=/usr/lib/llvm-22/bin:$PATH \
        need_tool bpf-linker "$BPF_LINKER" --no-default-features --features llvm-22
}

# need_vm: QEMU and two of Debian's kernels, unpacked and not installed.
need_vm() {
    local kernel status
    need_program ip iproute2 && need_program python3 python3 && need_program zstd zstd || return
    # What the tests run inside, where the file tree is this machine's.
    need_program nft nftables && need_program sipp sip-tester && need_packages "${KAMAILIO[@]}" || return
    for kernel in 6.1 6.12; do
        logged 1200 "vm-fetch-$kernel" tests/vm/fetch "$kernel" && continue
        status=$?
        reason="Linux $kernel in a VM: $(tail -n 1 "$logs/vm-fetch-$kernel.log")"
        return "$status"
    done
}

# need_oracles: a Python of its own with Scapy, in $python. Debian's Python is
# preferred: another one in the PATH may lack what its package brings.
need_oracles() {
    local wanted=$root/tests/oracle/requirements.txt venv=$target/oracle/venv base
    python=$venv/bin/python
    cmp -s "$wanted" "$venv/requirements.txt" && "$python" -c '' 2>/dev/null && return 0
    base=$(python_with_venv) || { need_packages python3 python3-venv && base=$(python_with_venv); } || return
    note "installing $(grep -c '^[a-z]' "$wanted") Python packages"
    logged 600 oracle-venv make_venv "$base" "$venv" "$wanted" && return 0
    reason="pip could not install $wanted"
    return 2
}

# The first Python that reads TOML (3.11) and can make environments.
python_with_venv() {
    local p
    for p in /usr/bin/python3 python3; do
        "$p" -c 'import ensurepip, tomllib, venv' 2>/dev/null && echo "$p" && return 0
    done
    return 1
}

make_venv() {
    "$1" -m venv --clear "$2" && "$2/bin/python" -m pip install --quiet -r "$3" && cp "$3" "$2/requirements.txt"
}

#!/usr/bin/env bash
# The vm tier: boots each kernel of the table `kernels` in QEMU, side by side, and runs there the tests that the
# table chooses. Prints their output with the kernel's name before each line, and fails if one fails.
#
#     run.sh [--kernel NAME] [--full | --short | --test TEXT | [--icount] -- COMMAND…]
#
# --full runs all tests of both tiers, --short those of the rows `short`, --test those with TEXT in their name, -- a
# command instead, with --icount by a clock that counts instructions where there is no KVM.
set -euo pipefail
shopt -s nullglob
cd "$(dirname "$0")/../.."

# A million frames, as on this machine, take an emulated processor an hour.
FUZZ_FRAMES=20000
PROBE_SECONDS=20
# Tests of one guest: so that their time can be bounded, and what was found is kept when it is over.
TESTS_MAX=20
# The few tests of --short have no more time than this, so that all tests end within the hour.
SHORT_SECONDS=1500

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

only='' text='' full='' row=run clock=tcg command=()
while [ $# -gt 0 ]; do
    case $1 in
        --kernel) only=${2:?--kernel needs a name} && shift 2 ;;
        --test) text=${2:?--test needs a text} && shift 2 ;;
        --full) full=yes && shift ;;
        --short) row=short && shift ;;
        --icount) clock=icount && shift ;;
        --) shift && command=("$@") && break ;;
        *) fail "unknown argument $1; see the head of tests/vm/run.sh" ;;
    esac
done

# rows KIND NAME: the rest of the table's rows for a kernel.
rows() {
    awk -v kind="$1" -v name="$2" '$1 == kind && ($2 == name || $2 == "all") { $1 = $2 = ""; print substr($0, 3) }' \
        tests/vm/kernels
}

# matching PATTERN TIER: names of tests, one a line.
matching() {
    local name
    while read -r name; do
        # shellcheck disable=SC2053 # it is a pattern
        [[ $name != $1 ]] || echo "$name"
    done <"$dir/$2"
}

# chosen KERNEL TIER: names of the tests to run, one a line.
chosen() {
    local tier pattern
    if [ -n "$text" ]; then
        matching "*$text*" "$2"
    elif [ -n "$full" ]; then
        cat "$dir/$2"
    else
        while read -r tier pattern; do
            [ "$tier" != "$2" ] || matching "$pattern" "$2"
        done < <(rows "$row" "$1") | sort -u
    fi
}

# A test that got another name must not go unnoticed.
check_patterns() {
    local tier pattern
    while read -r tier pattern; do
        [ -n "$(matching "$pattern" "$tier")" ] || fail "tests/vm/kernels: no test of the $tier tier is called $pattern"
    done < <(awk '$1 == "run" || $1 == "short" { print $3, $4 }' tests/vm/kernels)
}

# scripts_for KERNEL TIER: writes what its guests run, one script for each; none if no test of the tier is chosen.
scripts_for() {
    local names at script
    mapfile -t names < <(chosen "$1" "$2")
    for ((at = 0; at < ${#names[@]}; at += TESTS_MAX)); do
        printf -v script '%s/%s.%s.%03d.sh' "$dir" "$1" "$2" $((at / TESTS_MAX))
        {
            printf 'cd %q || exit\n' "$PWD"
            printf 'export CI=true FUZZ_FRAMES=%q RUST_BACKTRACE=1\n' "$FUZZ_FRAMES"
            printf 'modprobe --all %s || exit\n' "$(rows need "$1" | tr '\n' ' ')"
            printf 'exec %q --test-threads 1 --exact' "${binaries[$2]}"
            printf ' %q' "${names[@]:at:TESTS_MAX}"
            printf '\n'
        } >"$script"
    done
}

# boot KERNEL MODE COMMAND…
boot() {
    local memory seconds
    read -r _ memory seconds < <(rows kernel "$1")
    [ "$row" != short ] || seconds=$SHORT_SECONDS
    tests/vm/boot.sh "${folders[$1]}" "$2" "$memory" "$seconds" "${@:3}" 2>&1 |
        tee -a "$dir/$1.log" | sed -u "s/^/$1: /"
}

# run_guests KERNEL: one for the command, or one after the other for the tests; fails if one does.
run_guests() {
    local script ended=0
    if [ "${#command[@]}" -gt 0 ]; then
        boot "$1" "${accelerator/tcg/$clock}" "${command[@]}" || ended=$?
    else
        for script in "$dir/$1".bpf.*.sh; do
            boot "$1" "$accelerator" bash "$script" || ended=$?
        done
        # The netns tier waits for what other programs do, and not for ever.
        for script in "$dir/$1".netns.*.sh; do
            boot "$1" "${accelerator/tcg/icount}" bash "$script" || ended=$?
        done
    fi
    return "$ended"
}

# report KERNEL ENDED: the last word on a kernel; fails if something is wrong.
report() {
    local passed failed expected
    passed=$(awk '/^test result:/ { n += $4 } END { print n + 0 }' "$dir/$1.log")
    failed=$(awk '/^test result:/ { n += $6 } END { print n + 0 }' "$dir/$1.log")
    expected=$(for tier in bpf netns; do chosen "$1" "$tier"; done | wc -l)
    echo "vm $1: $expected tests chosen, $passed passed, $failed failed, $(cat "$dir/$1.seconds") s, $accelerator"
    if [ "$2" != 0 ]; then
        sed -n 's/^test \(.*\) \.\.\. FAILED.*/    failed: \1/p' "$dir/$1.log"
        echo "    its last command to fail ended with $2"
        return 1
    fi
    if [ "$passed" != "$expected" ] || [ "$passed" = 0 ]; then
        echo '    not every test chosen has been run'
        return 1
    fi
}

[ "$(id -u)" = 0 ] || fail 'the guests read the files of this machine: run as root'
[ "$(uname -m)" = x86_64 ] || fail "the kernels of the vm tier are for x86_64, this machine is $(uname -m)"
cache=$(realpath -m "${CARGO_TARGET_DIR:-target}")/vm
mapfile -t kernels < <(awk -v only="$only" '$1 == "kernel" && (only == "" || $2 == only) { print $2 }' tests/vm/kernels)
[ "${#kernels[@]}" -gt 0 ] ||
    fail "no kernel $only in tests/vm/kernels, only $(awk '$1 == "kernel" { print $2 }' tests/vm/kernels | xargs)"

declare -A folders binaries running
for kernel in "${kernels[@]}"; do
    read -r package _ < <(rows kernel "$kernel")
    folders[$kernel]=$(tests/vm/unpack.sh "$package" "$cache")
done
dir=$(mktemp -d "${TMPDIR:-/tmp}/ciliate-vm-run.XXXXXX")
# shellcheck disable=SC2317 # the trap calls it
clean_up() {
    local guest
    for guest in "${running[@]}"; do
        kill -- "-$guest" 2>/dev/null || true
    done
    wait
    rm -rf "$dir"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

if [ "${#command[@]}" = 0 ]; then
    cargo test --no-run --locked --test bpf --test netns --message-format json >"$dir/built"
    for tier in bpf netns; do
        binaries[$tier]=$(sed -n "s|.*\"executable\":\"\([^\"]*/$tier-[0-9a-f]*\)\".*|\1|p" "$dir/built")
        [ -x "${binaries[$tier]}" ] || fail "cargo did not name the tests of the $tier tier"
        "${binaries[$tier]}" --list --format terse | sed -n 's/: test$//p' >"$dir/$tier"
    done
    VM_PROGRAM=$(sed -n 's|.*"executable":"\([^"]*/ciliate\)".*|\1|p' "$dir/built" | tail -n 1)
    export VM_PROGRAM
    check_patterns
    for kernel in "${kernels[@]}"; do
        scripts_for "$kernel" bpf
        scripts_for "$kernel" netns
    done
fi

# Virtual machines inside virtual machines often have a KVM that does not work; trying tells.
accelerator=tcg
if [ -w /dev/kvm ] &&
    tests/vm/boot.sh "${folders[${kernels[0]}]}" kvm 512M "$PROBE_SECONDS" true >/dev/null 2>&1; then
    accelerator=kvm
fi

# Each in a process group of its own, which can be ended as a whole.
set -m
for kernel in "${kernels[@]}"; do
    (
        start=$SECONDS ended=0
        run_guests "$kernel" || ended=$?
        echo $((SECONDS - start)) >"$dir/$kernel.seconds"
        exit "$ended"
    ) &
    running[$kernel]=$!
done
worst=0
declare -A ends
for kernel in "${kernels[@]}"; do
    ended=0
    wait "${running[$kernel]}" || ended=$?
    ends[$kernel]=$ended
    unset "running[$kernel]"
done
for kernel in "${kernels[@]}"; do
    if [ "${#command[@]}" -gt 0 ]; then
        [ "${ends[$kernel]}" = 0 ] || worst=${ends[$kernel]}
    else
        report "$kernel" "${ends[$kernel]}" || worst=1
    fi
done
exit "$worst"

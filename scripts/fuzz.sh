#!/usr/bin/env bash
# Runs fuzz targets under libFuzzer, guided by coverage, on the stable compiler:
#
#   scripts/fuzz.sh [TARGET…]      all targets, or some; FUZZ_SECONDS each (3600), all at once, nice
#
# The compiler's sanitizer coverage is an LLVM pass that a stable rustc can be told to run; a wrapper adds it
# for the project's own crates alone, so that what is counted is our code. Corpora stay in target/fuzz/corpus, what
# crashed in target/fuzz/TARGET. Ends with 1 if anything was found.
set -euo pipefail

if [ -n "${FUZZ_COVERED:-}" ] && [ $# -gt 0 ]; then
    # As RUSTC_WRAPPER: the compiler and its arguments.
    name=$(printf '%s\n' "$@" | sed -n '/^--crate-name$/{n;p;q}')
    coverage=()
    case " $FUZZ_COVERED " in *" ${name:-none} "*)
        coverage=(-Cpasses=sancov-module)
        for option in level=4 inline-8bit-counters pc-table trace-compares; do
            coverage+=("-Cllvm-args=-sanitizer-coverage-$option")
        done ;;
    esac
    exec "$@" "${coverage[@]}"
fi

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly seconds=${FUZZ_SECONDS:-3600} home=$PWD/target/fuzz
targets=("$@")
if [ ${#targets[@]} = 0 ]; then
    for file in fuzz/fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi

bins=()
for target in "${targets[@]}"; do bins+=(--bin "$target"); done
FUZZ_COVERED="etcd_dr etcd_dr_fuzz ${targets[*]}" RUSTC_WRAPPER=$PWD/scripts/fuzz.sh CARGO_TARGET_DIR=$home/build \
    cargo --config profile.dev.package.etcd-dr.opt-level=2 build --locked --features libfuzzer \
    --manifest-path fuzz/Cargo.toml "${bins[@]}"

# Real documents to begin with.
seeds() {
    case $1 in
        yaml) git ls-files 'fixtures/*.yaml' 'fixtures/*.yml' 'deploy/*.yaml' ;;
        documents) git ls-files 'fixtures/*.json' ;;
        journal) git ls-files fixtures/journals ;;
        *) git ls-files "fuzz/seeds/$1" ;;
    esac
}

pids=()
for target in "${targets[@]}"; do
    mkdir -p "$home/corpus/$target" "$home/$target"
    number=0
    while read -r file; do
        cp "$file" "$home/corpus/$target/seed-$number"
        number=$((number + 1))
    done < <(seeds "$target")
    (
        cd "$home/$target"
        exec nice -n 19 "$home/build/debug/$target" -max_total_time="$seconds" -rss_limit_mb=2048 \
            -timeout=20 -max_len=65536 -print_final_stats=1 "$home/corpus/$target" 2>"log"
    ) &
    pids+=($!)
done
status=0
for at in "${!targets[@]}"; do
    found=no
    wait "${pids[$at]}" || { found=yes; status=1; }
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$home/${targets[$at]}/log")
    printf '%s\t%s executions\tfound: %s\n' "${targets[$at]}" "${runs:-?}" "$found"
done
exit "$status"

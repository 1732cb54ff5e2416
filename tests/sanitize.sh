#!/bin/sh
# Builds the kernels for AddressSanitizer and UBSan in a copy of the tree, and runs their tests there.
# Every bytes object comes from malloc, so that reading one byte beyond its end is seen.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT

mkdir -p "$copy/engine/fieldsync/_native" "$copy/engine/fieldsync/syncing"
cp -r "$root/native" "$root/tests" "$root/setup.py" "$root/pyproject.toml" "$copy"
cp "$root/engine/fieldsync/_native/"*.p[xy]* "$copy/engine/fieldsync/_native"
cp "$root/engine/fieldsync/errors.py" "$root/engine/fieldsync/limits.py" "$copy/engine/fieldsync"
cp "$root/engine/fieldsync/syncing/__init__.py" "$root/engine/fieldsync/syncing/reconcile.py" \
    "$copy/engine/fieldsync/syncing"
echo '"""The kernels, and reconcile: what else the package imports has no place under the sanitizers."""' \
    > "$copy/engine/fieldsync/__init__.py"
cd "$copy"
rm -f native/*.c
FIELDSYNC_NATIVE_SANITIZE=1 python setup.py -q build_ext --inplace --parallel 2 > build.log 2>&1 || { cat build.log; exit 1; }

LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)" \
ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=2048 \
UBSAN_OPTIONS=print_stacktrace=1 \
PYTHONMALLOC=malloc PYTHONPATH=engine \
HYPOTHESIS_PROFILE="${HYPOTHESIS_PROFILE:-small}" HYPOTHESIS_STORAGE_DIRECTORY="$root/.hypothesis" \
    python -m pytest -q -p no:cacheprovider \
    tests/test_codec.py tests/test_merge.py tests/test_diff.py tests/test_chunk.py tests/test_golden.py \
    tests/test_reconcile.py tests/test_existence.py tests/test_plain.py tests/test_numbers.py tests/test_named.py \
    tests/test_deletion.py tests/test_entries.py "$@"

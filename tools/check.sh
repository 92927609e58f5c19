#!/usr/bin/env bash
# Everything that can be said about a change without running the tests. Usage: tools/check.sh [CHECK ...]
# Checks: lint format types layers kernels shape docs (all of them without an argument). Interpreter: $PYTHON, else python.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

run() {
    case "$1" in
        lint) "$python" -m ruff check . ;;
        format) "$python" -m ruff format --check . ;;
        types) "$python" -m mypy ;;
        layers) "$python" tools/check_layers.py --self-test ;;
        kernels) "$python" tools/check_kernels.py ;;
        shape) "$python" tools/check_shape.py ;;
        docs) "$python" tools/check_docs.py ;;
        *)
            echo "unknown check '$1'; there are: lint format types layers kernels shape docs" >&2
            exit 2
            ;;
    esac
}

checks=("$@")
[ ${#checks[@]} -gt 0 ] || checks=(lint format types layers kernels shape docs)
failed=()
for check in "${checks[@]}"; do
    echo "== $check"
    run "$check" || failed+=("$check")
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}" >&2
    exit 1
fi
echo "all checks passed: ${checks[*]}"

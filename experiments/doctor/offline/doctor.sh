#!/usr/bin/env bash
# Examines this machine with mixlab doctor, in three calls of at most ten minutes, without a network.
#   bash doctor.sh 1|2|3 OUT [options of mixlab doctor]    1: machine, parity   2: bits, memory   3: speed, training
# OUT gets the page and its figures; the three calls may share it. PYTHON names the interpreter (python3), which has
# PyTorch and JAX. Options that are given come last: --device cpu, --short, --minutes 20.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
case "${1:-}" in
    1) parts=(--part machine --part parity) ;;
    2) parts=(--part bits --part memory) ;;
    3) parts=(--part speed --part training) ;;
    *) set -- ;;
esac
if [ $# -lt 2 ]; then
    sed -n '2,5s/^# //p' "$0" >&2
    exit 2
fi
out=$2
shift 2
python=${PYTHON:-python3}
site=$here/site
if ! version=$("$python" -c 'import sys; print(*sys.version_info[:2], sep=".")'); then
    echo "doctor.sh: PYTHON: cannot start $python; expected an interpreter of Python 3.12" >&2
    exit 2
fi
export PYTHONSAFEPATH=1 # the code is this folder's, wherever the command is given
if [ ! -d "$site" ]; then
    # A package that is there already, in whatever version, stays the one that is used.
    missing=$("$python" - "$here"/wheels/*.whl <<'PYTHON'
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

for wheel in sys.argv[1:]:
    try:
        version(Path(wheel).name.split("-")[0])
    except PackageNotFoundError:
        print(wheel)
PYTHON
)
    rm -rf "$site.new"
    mkdir "$site.new"
    if [ -n "$missing" ]; then
        mapfile -t wheels <<<"$missing"
        if ! "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir \
            --disable-pip-version-check --target "$site.new" "${wheels[@]}"; then
            rm -rf "$site.new"
            echo "doctor.sh: the wheels are for Python 3.12, and $python is Python $version; set PYTHON=" >&2
            exit 2
        fi
    fi
    mv "$site.new" "$site"
fi
export PYTHONPATH="$here/code:$site${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
mkdir -p "$out"
cp "$here/commit.txt" "$out/"
exec "$python" -m mixlab doctor --device cuda --minutes 8 "${parts[@]}" --out "$out" "$@"

#!/usr/bin/env bash
# The agreement tests and the benchmark suite on a CUDA machine without network, within nine minutes.
#
#   benchmarks/cuda.sh OUT [--device cuda|cpu] [--size full|smoke] [--wheels DIR]
#
# The machine needs Python >= 3.11 with torch >= 2.10, torchvision and pytest-benchmark. The wheels of captum and of
# this project (`uv build --wheel`, so that its entry points are found) lie in DIR, by default the folder of this
# script. OUT gets agreement.log, the results as JSON and their logs. Run it from a checkout of the same version.
set -euo pipefail

usage() { sed -n '2,8p' "$0" | sed 's/^# \{0,1\}//'; exit 2; }
[ $# -ge 1 ] && [ "${1#-}" = "$1" ] || usage
out=$(mkdir -p "$1" && cd "$1" && pwd); shift
here=$(cd "$(dirname "$0")" && pwd)
device=cuda size=full wheels=$here
while [ $# -gt 0 ]; do
  case "$1" in
    --device) device=$2; shift 2 ;;
    --size) size=$2; shift 2 ;;
    --wheels) wheels=$(cd "$2" && pwd); shift 2 ;;
    *) usage ;;
  esac
done

cd "$here/.."
packages=$(mktemp -d)
trap 'rm -rf "$packages"' EXIT
python3 -m pip install --quiet --no-deps --no-index --target "$packages" "$wheels"/*.whl
export PYTHONPATH="$packages${PYTHONPATH:+:$PYTHONPATH}"
python3 -c "import captum, torch, torchvision, attribution; print('torch', torch.__version__, 'captum', captum.__version__)"

status=0
step() {  # step LIMIT LOG COMMAND…: run, keep the log, go on after a failure and fail at the end
  local limit=$1 log=$2; shift 2
  echo "== $log: $*"
  timeout --kill-after=10 "$limit" "$@" >"$out/$log" 2>&1 || { status=1; echo "failed, see $log"; }
  tail -n 3 "$out/$log"
}

NVIDIA_TF32_OVERRIDE=0 step 100 agreement.log \
  python3 -m pytest tests/test_agreement.py -q --device "$device" -m device
step 270 "$device-tf32-off.log" \
  python3 -m pytest benchmarks -q --device "$device" --size "$size" --budget 220 --benchmark-json "$out/$device-tf32-off.json"
if [ "$device" = cuda ]; then
  step 120 "$device-tf32-on.log" \
    python3 -m pytest benchmarks -q --device "$device" --size "$size" --tf32 --budget 90 --benchmark-json "$out/$device-tf32-on.json"
fi
exit $status

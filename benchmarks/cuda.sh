#!/usr/bin/env bash
# Agreement and timings on a CUDA machine without network, within five minutes; what is done first matters most.
#
#   benchmarks/cuda.sh OUT [--device cuda|sim|cpu] [--size device|smoke] [--wheels DIR] [--rounds N]
#                          [--only tests|kit|times] [--seconds S]
#
# The machine needs Python >= 3.11 with torch >= 2.10, torchvision, pytest, pytest-benchmark and hypothesis. The wheels of
# captum and of this project (`uv build --wheel`, so that its entry points are found), and of what else is missing
# there, lie in DIR, by default the folder of this script. Run it from a checkout of the same version.
#
# First the tests marked `device`, N times at once (default 10, off CUDA 1), with TF32 off. Then, with nothing beside
# them, the rows of `--size device`: float32 and bfloat16, then TF32. OUT gets a log of each step, and the rows as lines
# of JSON, each written when it is done, so that a run that is cut keeps them. S (default 190) is how long the rows take.
# `--only kit` holds every attributor to all of the conformance kit there instead, N tests at once, by pytest-xdist.
#
# `--device sim --size smoke` rehearses all of it without a GPU, in minutes. Its rows say so, and no report takes them.
set -euo pipefail

usage() { sed -n '2,16p' "$0" | sed 's/^# \{0,1\}//'; exit 2; }
[ $# -ge 1 ] && [ "${1#-}" = "$1" ] || usage
out=$(mkdir -p "$1" && cd "$1" && pwd); shift
here=$(cd "$(dirname "$0")" && pwd)
device=cuda size=device wheels=$here rounds= only=all seconds=190
while [ $# -ge 2 ]; do
  case "$1" in
    --device) device=$2 ;;
    --size) size=$2 ;;
    --wheels) wheels=$(cd "$2" && pwd) ;;
    --rounds) rounds=$2 ;;
    --only) only=$2 ;;
    --seconds) seconds=$2 ;;
    *) usage ;;
  esac
  shift 2
done
[ $# -eq 0 ] || usage
slower=0  # seconds more that each step may take
[ "${device%%:*}" = cuda ] || { rounds=${rounds:-1} slower=900; }

cd "$here/.."
packages=$(mktemp -d)
trap 'rm -rf "$packages"' EXIT
if compgen -G "$wheels/*.whl" >/dev/null; then
  python3 -m pip install --quiet --no-deps --no-index --no-compile --target "$packages" "$wheels"/*.whl
fi
export PYTHONPATH="$packages${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export CUBLAS_WORKSPACE_CONFIG=:4096:8  # torch before 2.15 asks for it where kernels are to be deterministic
python3 -c "
import captum, torch, torchvision
from attribution import registry
assert registry.available(), 'no backend is installed'
print('torch', torch.__version__, 'captum', captum.__version__)"

status=0
bounded() {  # bounded LIMIT LOG COMMAND...: run it and keep its log
  local limit=$1 log=$2; shift 2
  timeout --kill-after=10 $((limit + slower)) python3 -m pytest -q -p no:cacheprovider --device "$device" "$@" >"$out/$log" 2>&1
}
told() { grep -hE '^(FAILED|ERROR)|^E  ' "$out/$1" | head -n 12 || true; tail -n 1 "$out/$1"; }

if [ "$only" = kit ]; then
  NVIDIA_TF32_OVERRIDE=0 bounded 300 kit.log tests/testing/test_conformance.py -m '' -k 'not hundreds' \
    -n "${rounds:-10}" --dist worksteal || status=1
  echo "kit: $SECONDS s"; told kit.log
  exit $status
fi
if [ "$only" != times ]; then
  mapfile -t files < <(grep -rlE 'mark\.device|pytestmark = .*device' tests --include='test_*.py')
  declare -A running
  for round in $(seq "${rounds:-10}"); do
    NVIDIA_TF32_OVERRIDE=0 bounded 130 "tests-$round.log" "${files[@]}" -m device & running[$round]=$!
  done
  for round in "${!running[@]}"; do
    wait "${running[$round]}" || { status=1; echo "round $round:"; told "tests-$round.log"; }
  done
  echo "device tests, ${rounds:-10} times: $SECONDS s"; tail -qn 1 "$out"/tests-*.log
fi
if [ "$only" != tests ]; then
  rows() {  # rows NAME SECONDS OPTIONS...
    local name=$1 budget=$2; shift 2
    bounded $((budget + 40)) "$name.log" benchmarks --size "$size" --budget "$budget" --rows "$out/$name.jsonl" "$@" || status=1
    echo "$name: $SECONDS s"; told "$name.log"
  }
  name=${device/:/-}
  if [ "$device" = cpu ]; then
    rows cpu "$seconds"
  else
    rows "$name" $((seconds * 3 / 4))
    again="(ResNet-50 and grad_cam and target) or (occlusion and ResNet)"
    [ "$size" = device ] || again="grad_cam and target and ResNet"
    rows "$name-tf32" $((seconds / 4)) --tf32 -k "$again"
  fi
fi
exit $status

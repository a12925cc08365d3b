#!/usr/bin/env bash
# Set up a GPU machine (GH200, H200, H100; aarch64 or x86-64) from this source tree, in .venv-gpu. Safe to run again.
#
#   bash bootstrap/gpu_host.sh [--shards URL [--to DIR]] [--experiment TOML]
#
# The host's own torch is used and never touched: the environment sees the host's packages, and what is missing is
# installed beside them without dependencies. --shards copies packed shards from S3 or a mounted disk, each file checked
# against its hash; without it the last lines say how to make shards here.
set -euo pipefail
tree=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
shards='' to="$tree/shards" experiment=experiments/gen2.toml

fail() { echo "gpu_host: $*" >&2; exit 1; }

while [ $# -gt 0 ]; do
  case $1 in
    --shards | --to | --experiment)
      [ $# -gt 1 ] || fail "$1 needs a value"
      case $1 in --shards) shards=$2 ;; --to) to=$2 ;; *) experiment=$2 ;; esac
      shift 2 ;;
    -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) fail "unknown argument $1; see --help" ;;
  esac
done

command -v nvidia-smi >/dev/null || fail "no nvidia-smi: this host has no NVIDIA driver, or it is not on the PATH"
gpu=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader) ||
  fail "nvidia-smi fails: the driver is not running; reboot, or take another machine"
echo "driver: $gpu"

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "$("$python" --version) is too old; name a Python 3.11 or newer that has torch: PYTHON=/path/to/python3"
where='import torch; print(torch.__version__, torch.__file__)'
before=$("$python" -c "$where") ||
  fail "$python has no torch; name the Python that has the host's torch: PYTHON=/path/to/python3"

venv=$tree/.venv-gpu
[ -x "$venv/bin/python" ] || "$python" -m venv --system-site-packages "$venv"
own=$venv/bin/python
# By a path file: the tree itself (nothing is built, nothing is fetched, and edits take effect at once), and what the
# host's Python sees where that is an environment itself: one made from another sees the base's packages only.
{
  echo "$tree"
  "$python" -c 'import sys, site; print(*[p for p in site.getsitepackages() if sys.prefix != sys.base_prefix], sep="\n")'
} > "$("$own" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/darkhaloscope-tree.pth"

# import name = distribution; installed without dependencies, so that none of them can bring a torch along.
missing=()
for pair in numpy=numpy scipy=scipy llvmlite=llvmlite numba=numba pyarrow=pyarrow h5py=h5py fsspec=fsspec tqdm=tqdm \
  sklearn=scikit-learn joblib=joblib threadpoolctl=threadpoolctl matplotlib=matplotlib jinja2=jinja2 \
  safetensors=safetensors yaml=pyyaml huggingface_hub=huggingface-hub timm=timm; do
  "$own" -c "import importlib.util as u, sys; sys.exit(u.find_spec('${pair%%=*}') is None)" || missing+=("${pair##*=}")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "installing what the host lacks: ${missing[*]}"
  "$own" -m pip install -q --no-deps -c "$tree/constraints.txt" "${missing[@]}" ||
    fail "pip could not install ${missing[*]}; install them by hand with --no-deps, then start again"
fi
after=$("$own" -c "$where")
[ "$before" = "$after" ] || fail "torch was $before, in $venv it is $after; remove $venv and start again"

cd "$tree"
"$own" -m bootstrap.gpu_check
"$own" -c 'import training.train, training.make_shards, evaluation.study' ||
  fail "the trainer cannot be imported; the line above says what is missing"

live=''
if [ -n "$shards" ]; then
  "$own" -m bootstrap.fetch_shards "$shards" "$to"
else
  live=' --live-injection'
  echo "no --shards: make some here, about 2 minutes on 16 cores:"
  echo "  $own -m training.make_shards --experiment $experiment --out $to"
fi
echo "train:"
echo "  $own training/train.py --experiment $experiment --data $to --out_dir runs/first --compile --num_workers 12$live"

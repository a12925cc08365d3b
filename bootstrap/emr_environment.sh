#!/usr/bin/env bash
# Build the environment archive for EMR, without a container: bash bootstrap/emr_environment.sh [OUT]
# Run it on Amazon Linux 2023 (an EC2 instance, CloudShell), the system of EMR 7.x nodes; any x86-64 Linux that has
# Python 3.11 will do while every dependency comes as a manylinux wheel. Needs a few GB of disk and the package index.
#   PYTHON        interpreter to build with (default python3.11, installed with dnf where it is missing)
#   NODES_PREFIX  where the nodes have Python 3.11 (default /usr)
#   RELEASE       EMR release label (default: that of bootstrap/package.py)
set -euo pipefail
out=${1:-dist/emr}
case $out in /*) ;; *) out=$PWD/$out ;; esac
cd "$(dirname "$0")/.."
python=${PYTHON:-python3.11}

if ! command -v "$python" >/dev/null; then
  command -v dnf >/dev/null || { echo "emr_environment: no $python here; install Python 3.11 or set PYTHON" >&2; exit 1; }
  sudo dnf install -y -q python3.11 python3.11-pip
fi
# Behind a proxy the trusted certificates are the system's, not those that uv ships.
export UV_SYSTEM_CERTS=1 UV_NATIVE_TLS=1

tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
"$python" -m venv "$tools"
"$tools/bin/python" -m pip install -q -c constraints.txt setuptools uv venv-pack
"$tools/bin/python" -m bootstrap.package --python "$python" --out "$out" \
  ${NODES_PREFIX:+--nodes-prefix "$NODES_PREFIX"} ${RELEASE:+--release "$RELEASE"}

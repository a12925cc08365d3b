#!/usr/bin/env bash
# Bootstrap action: make the folders that stages write to on a node, on its large disk. It installs nothing: what runs
# comes in the environment archive.
set -euo pipefail
base=${1:-/mnt/darkhaloscope}
sudo mkdir -p "$base/scratch" "$base/numba"
sudo chmod 1777 "$base" "$base/scratch" "$base/numba"

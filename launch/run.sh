#!/bin/sh
# launch/run.sh SCRIPT [flags]   runs an experiment; --help after SCRIPT shows its page.
#
# The first start makes .venv. LMJAX_EXTRAS=cuda (or tpu, bench) installs that extra as well, LMJAX_PYTHON names the
# Python to use.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/launch/environment.sh"

case "${1:-}" in
'')
    echo "usage: launch/run.sh SCRIPT [flags], for example launch/run.sh experiments/gpt_char.py --help" >&2
    exit 2 ;;
-*) ;; # python's own: -m MODULE
*)
    if ! [ -f "$1" ]; then
        echo "launch/run.sh: there is no script $1: expected one such as experiments/gpt_char.py" >&2
        exit 2
    fi ;;
esac
environment text,plot,tb,digits
exec "$root/.venv/bin/python" "$@"

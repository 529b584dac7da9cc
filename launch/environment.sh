# Sourced by the scripts beside it: `environment EXTRAS` makes $root/.venv hold lmjax with those extras (a,b,c).
#
# .venv/lmjax says what it was made from. A start that finds it up to date reads two files and starts Python once;
# without it (a first start, or one that was broken off) the environment is made anew.

environment() {
    wanted=$1${LMJAX_EXTRAS:+,$LMJAX_EXTRAS}
    up_to_date && return
    (   # Two starts at once: the second waits, and finds the work done.
        if command -v flock >/dev/null 2>&1; then flock 9; fi
        up_to_date || make_environment
    ) 9<"$root/pyproject.toml" >&2
}

up_to_date() {
    version=$("$root/.venv/bin/python" -V 2>/dev/null) || return
    key="$version $root $(cat "$root/pyproject.toml" "$root/constraints.txt" | cksum)"
    made=
    have=
    { read -r made && read -r have; } 2>/dev/null <"$root/.venv/lmjax" || return
    [ "$made" = "$key" ] || return
    for extra in $(echo "$wanted" | tr , ' '); do
        case ",$have," in *",$extra,"*) ;; *) return 1 ;; esac
    done
}

make_environment() {
    echo "lmjax: installing into $root/.venv: once, a minute or so"
    case "${made:-}" in
    "${version:-none} $root "*) # the same Python at the same place: only what is missing or changed
        extras=$wanted,$have ;;
    *)
        extras=$wanted
        if command -v uv >/dev/null 2>&1; then
            uv venv --quiet --clear --seed --python "${LMJAX_PYTHON:->=3.11}" "$root/.venv"
        else
            python=$(find_python)
            "$python" -m venv --clear "$root/.venv"
        fi ;;
    esac
    rm -f "$root/.venv/lmjax"
    set -- -c "$root/constraints.txt" -e "$root[$extras]"
    if command -v uv >/dev/null 2>&1; then
        uv pip install --quiet --python "$root/.venv/bin/python" "$@"
    else
        # Byte code is written as modules are first imported: half the installation's time is saved.
        [ -n "${PYTHONDONTWRITEBYTECODE:-}" ] || set -- --no-compile "$@"
        "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
    fi
    have=
    up_to_date || true # sets key, of the Python that is there now
    printf '%s\n%s\n' "$key" "$extras" >"$root/.venv/lmjax"
}

find_python() {
    for python in ${LMJAX_PYTHON:-python3.13 python3.12 python3.11 python3 python python3.14}; do
        if "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    echo "lmjax: found no Python >= 3.11 with its venv module: install one (python3 and python3-venv), or uv" >&2
    exit 2
}

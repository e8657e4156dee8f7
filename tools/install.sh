# To be sourced by bash at the repository's top: activates an environment that holds what tools/constraints.txt pins.
# Uses the active environment, or makes .venv. PYTHON chooses the interpreter that makes it (3.11 or newer).
# To choose a build of torch, install torch==2.13.0 into the active environment first, or set PIP_INDEX_URL or
# PIP_EXTRA_INDEX_URL; a version that is already there is kept.

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3 python}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "error: no Python 3.11 or newer found; set PYTHON to one" >&2
    return 1
}

dependencies() { # those of pyproject.toml, all extras but the site's and lint too, but those that must not choose a torch of their own
    python - <<'PY'
import re, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
extras = [name for extra, names in project["optional-dependencies"].items() if extra not in ("docs", "lint") for name in names]
print("\n".join(d for d in project["dependencies"] + extras if re.split(r"\W", d)[0] not in ("torch", "timm")))
PY
}

pinned() { grep "^$1==" tools/constraints.txt; }

if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
    if [ ! -x .venv/bin/python ]; then
        interpreter="$(find_python)"
        "$interpreter" -m venv .venv
    fi
    source .venv/bin/activate
fi

if ! wrong="$(python tools/check_install.py)"; then
    echo "Installing the pinned dependencies into $(python -c 'import sys; print(sys.prefix)') (once; about 2 GB):"
    sed 's/^/  /' <<<"$wrong"
    export PIP_DISABLE_PIP_VERSION_CHECK=1
    # torch first and alone, so that pip keeps the build it finds; timm and torchvision alone, since they would replace it.
    python -m pip install "$(pinned torch)"
    mapfile -t wanted < <(dependencies)
    python -m pip install -c tools/constraints.txt "${wanted[@]}"
    python -m pip install --no-deps "$(pinned timm)" "$(pinned torchvision)"
    python -m pip install --quiet --no-deps --no-build-isolation -e .
    if ! wrong="$(python tools/check_install.py)"; then
        echo "error: the installation is incomplete:" >&2
        sed 's/^/  /' <<<"$wrong" >&2
        return 1
    fi
fi

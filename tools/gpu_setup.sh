# To be sourced by bash: source tools/gpu_setup.sh [WHEELS [SITE]]
# Makes this checkout importable without installing it, and without changing the environment. With WHEELS, a folder that
# tools/gpu_wheels.sh filled, installs these into the folder SITE (a new temporary one if not given) and puts them first.

_top="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
_links="$_top/build/importable" # the plugins' folder by the name that they are imported by
mkdir -p "$_links" && ln -sfn "$_top/plugins" "$_links/di4c_plugins"
export PYTHONPATH="$_top:$_links:$_top/tools${PYTHONPATH:+:$PYTHONPATH}"

if [ -n "${1:-}" ]; then
    _site="${2:-$(mktemp -d)}"
    "$(command -v python3 || command -v python)" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile \
        --upgrade --target "$_site" "$1"/*.whl || return 1
    export PYTHONPATH="$_site:$PYTHONPATH" PATH="$_site/bin:$PATH"
fi

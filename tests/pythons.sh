#!/bin/sh
# The tests that need no engine, on every Python from 3.11 on that is in PATH or in pyenv's folder, but for the one of .venv.
set -eu
seen=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
for python in python3.11 python3.12 python3.13 python3.14 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[1-9].*/bin/python3; do
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
  case " $seen " in *" $version "*) continue ;; esac
  seen="$seen $version"
  echo "Python $version ($python)"
  venv=.venv-$version
  [ -x "$venv/bin/pytest" ] || { "$python" -m venv "$venv" && "$venv/bin/pip" install -q --disable-pip-version-check -e '.[dev]'; }
  for wheel in .venv/wheels/*.whl; do [ ! -e "$wheel" ] || "$venv/bin/pip" install -q --disable-pip-version-check --no-deps "$wheel"; done
  "$venv/bin/python" -m pytest -p no:cacheprovider tests/unit tests/conformance tests/golden
done

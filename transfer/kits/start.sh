#!/bin/sh
# Starts this folder's own Python on its own C library, wherever the folder is and whatever the host's profile sets.
me=$0
case $me in */*) ;; *) me=$(command -v -- "$me") || { echo "transfer: start this by its path" >&2 && exit 127; } ;; esac
while [ -h "$me" ]; do
	to=$(readlink "$me") || exit 127
	case $to in /*) me=$to ;; *) me=${me%/*}/$to ;; esac
done
unset CDPATH
here=$(cd -- "${me%/*}/.." && pwd -P) || exit 127
unset LD_PRELOAD LD_LIBRARY_PATH LD_AUDIT LD_BIND_NOW LD_DEBUG LD_ORIGIN_PATH GCONV_PATH LOCPATH NLSPATH GLIBC_TUNABLES \
	PYTHONHOME PYTHONPATH PYTHONSTARTUP PYTHONPLATLIBDIR PYTHONEXECUTABLE PYTHONWARNINGS PYTHONINSPECT PYTHONOPTIMIZE
case $here in
@FIXED@) exec "$here/bin/@PYTHON@" -I @MODULE@"$@" ;;
*) exec "$here/lib/@LOADER@" --inhibit-cache --inhibit-rpath '' --argv0 "$here/bin/python3" --library-path "$here/lib" "$here/bin/@PYTHON@" -I @MODULE@"$@" ;;
esac

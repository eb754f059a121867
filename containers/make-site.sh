#!/bin/sh
# Put Python packages into the directory TARGET, as the images have it in /opt/ewms/site. They are for Debian's Python,
# VERSION (3.13), on machines like this one; the Python that runs pip (`python3`, or what PYTHON names) may be another.
# The other words are pip's: what to get, and how.
#
#     sh make-site.sh build/site-tms 3.13 --require-hashes --no-deps --requirement locks/tms.txt
#     sh make-site.sh build/site-tms 3.13 --no-deps dist/ewms_htcondor-1.2.3-py3-none-any.whl
set -eu
target=$1 version=$2
shift 2

# pip takes exactly the platforms that it is told: all that a libc 2.41 (trixie) runs, the newest first.
minor=41
while [ "$minor" -ge 17 ]; do
    set -- "$@" --platform "manylinux_2_${minor}_$(uname -m)"
    minor=$((minor - 1))
done

"${PYTHON:-python3}" -m pip install -qq --no-compile --target "$target" \
    --only-binary=:all: --implementation cp --python-version "$version" "$@"

# Scripts for another Python than the image's, and what only PyPy uses: half of all that a pilot needs.
rm -rf "${target:?}/bin" "$target"/zstandard/*cffi*

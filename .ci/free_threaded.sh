#!/usr/bin/env bash
# Build a free-threaded CPython from Debian's own source package, with nothing but apt and a compiler.
#
#     .ci/free_threaded.sh FOLDER [VERSION]        then FOLDER/bin/python3
#
# VERSION is such as 3.14; without it, it is 3.14 if that can be had and 3.13 otherwise. The source is fetched by apt from
# wherever this machine's packages come from (another Debian mirror: FASTPROD_DEBIAN_MIRROR), from the newest suite that
# has it (a mirror may lack what its index names), and checked against Debian's keys. apt's own settings, lists and
# cache stay as they are. It is compiled with -O2 and without profile-guided optimization, which would run the test
# suite first. MAKEFLAGS (such as -j2) and CONFIGURE (more options for ./configure, such as --with-thread-sanitizer) are
# passed on.
#
# Needs: dpkg-dev, a C compiler, make, and the headers that the interpreter's own modules want (libssl-dev, zlib1g-dev,
# libffi-dev; without libbz2-dev, liblzma-dev and libsqlite3-dev these modules are left out).
set -euo pipefail
[ $# = 1 ] || [ $# = 2 ] || { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
mkdir -p "$1"
target=$(cd "$1" && pwd)
versions=${2:-3.14 3.13}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

mirror=${FASTPROD_DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' \
    'Origin: Debian' | sed -n 1p)}
[ -n "$mirror" ] || { echo "apt knows no Debian packages; run apt-get update once" >&2; exit 1; }
mkdir -p lists/partial cache/archives/partial
cat > debian.sources <<SOURCES
Types: deb-src
URIs: $mirror
Suites: stable testing unstable
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCES
cat > apt.conf <<CONF
Dir::Etc::sourcelist "$scratch/debian.sources";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "$scratch/lists";
Dir::Cache "$scratch/cache";
APT::Sandbox::User "$(id -un)";
CONF
export APT_CONFIG=$scratch/apt.conf
apt-get -q update
fetched=
for version in $versions; do
    for suite in unstable testing stable; do
        rm -f ./*.dsc
        apt-get -q source --download-only "python$version/$suite" && fetched=yes && break 2
    done
done
[ -n "$fetched" ] || { echo "the source of CPython $versions is not to be had here" >&2; exit 1; }
dpkg-source --no-check --skip-patches -x python3.*.dsc source   # apt has checked it; the patches are for /usr

cd source
# shellcheck disable=SC2086  # several options
./configure -q --prefix="$target" --disable-gil --with-ensurepip=install OPT="-DNDEBUG -O2 -g -Wall" ${CONFIGURE:-}
make -s
make -s install > /dev/null
"$target/bin/python3" -VV
"$target/bin/python3" -c 'import sys; sys.exit(sys._is_gil_enabled())'

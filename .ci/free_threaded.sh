#!/usr/bin/env bash
# Build a free-threaded CPython from Debian's own source package, with nothing but apt and a compiler.
#
#     .ci/free_threaded.sh FOLDER [VERSION]        then FOLDER/bin/python3
#
# VERSION is such as 3.14; without it, it is 3.14. The source is fetched from wherever this machine's packages come from
# (another Debian mirror: FASTPROD_DEBIAN_MIRROR), by apt, from the newest suite that has it, and checked against
# Debian's keys. A mirror may lack what its index names, and hold what no index names any more: a VERSION as Debian
# writes it, such as 3.14.7-1, is taken as it is and checked against the key of the developer who signed it, and 3.14
# tries those of KNOWN last. apt's own settings, lists and cache stay as they are. It is compiled with -O2 and without
# profile-guided optimization, which would run the test suite first. MAKEFLAGS (such as -j2) and CONFIGURE (more options
# for ./configure, such as --with-thread-sanitizer) are passed on.
#
# Needs: dpkg-dev, curl and debian-keyring (for an exact version), a C compiler, make, and the headers that the
# interpreter's own modules want (libssl-dev, zlib1g-dev, libffi-dev; without libbz2-dev, liblzma-dev and libsqlite3-dev
# these modules are left out).
set -euo pipefail
[ $# = 1 ] || [ $# = 2 ] || { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
mkdir -p "$1"
target=$(cd "$1" && pwd)
version=${2:-3.14}
KNOWN="3.14.7-1"
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

indexed() {   # VERSION: by apt, which checks it
    for suite in unstable testing stable; do
        rm -f ./*.dsc
        apt-get -q source --download-only "python$1/$suite" || continue
        dpkg-source --no-check --skip-patches -x python3.*.dsc source   # the patches are for /usr
        return
    done
    return 1
}

exact() {   # VERSION: from the mirror's pool, with the signature and the sums of its .dsc
    local minor pool
    minor=$(echo "$1" | cut -d. -f1,2)
    pool=${mirror%/}/pool/main/p/python$minor
    rm -f ./*.dsc
    curl -fsSO "$pool/python${minor}_$1.dsc" || return 1
    sed -n '/^Checksums-Sha256:/,/^[^ ]/s/^ .* //p' python3.*.dsc | while read -r file; do
        curl -fsSO "$pool/$file"
    done
    dpkg-source --require-valid-signature --skip-patches -x python3.*.dsc source
}

case $version in
    *-*) exact "$version" ;;
    *) indexed "$version" || for each in $KNOWN; do
           case $each in "$version".*) exact "$each" && break ;; esac
       done ;;
esac
[ -d source ] || { echo "the source of CPython $version is not to be had here" >&2; exit 1; }

cd source
# shellcheck disable=SC2086  # several options
./configure -q --prefix="$target" --disable-gil --with-ensurepip=install OPT="-DNDEBUG -O2 -g -Wall" ${CONFIGURE:-}
make -s
make -s install > /dev/null
"$target/bin/python3" -VV
"$target/bin/python3" -c 'import sys; sys.exit(sys._is_gil_enabled())'

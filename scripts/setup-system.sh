#!/usr/bin/env bash
# Installs the Debian packages that the benchmarks and some tests use. Needs root; installs only what is missing.
set -euo pipefail
packages=(build-essential libgloo-dev openmpi-bin libopenmpi-dev iproute2 nftables openssl socat coturn etcd-server chromium)
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if [ "${#missing[@]}" -eq 0 ]; then exit 0; fi
if [ "$(id -u)" != 0 ]; then
  echo "missing, and only root can install them: ${missing[*]}" >&2
  exit 1
fi
# The tests start servers of their own. Debian's packages would start one as well, now and at each boot; where somebody has
# installed one before us, it is left as it is.
mask() { # package, service
  if [[ " ${missing[*]} " == *" $1 "* ]] && [ ! -e "/etc/systemd/system/$2.service" ]; then
    mkdir -p /etc/systemd/system
    ln -s /dev/null "/etc/systemd/system/$2.service"
  fi
}
mask coturn coturn
mask etcd-server etcd
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null

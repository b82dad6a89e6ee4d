#!/usr/bin/env bash
# The real servers that the tests run on, on a machine that has none: Debian's packages, where this is root and they can be had.
# Best effort: what cannot be installed is skipped by its tests, and named in the table at the end of `npm test`.
set -u
[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || { echo "Not root on Debian: the tests run on what is installed."; exit 0; }
missing=()
want() { command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ] || [ -n "${3:-}" -a -e "${3:-}" ] || missing+=("$2"); }
want redis-server redis-server
want pg_ctlcluster postgresql
want mariadbd mariadb-server
want etcd etcd-server
want etcdctl etcd-client
want memcached memcached
want pgbouncer pgbouncer
want java default-jre-headless
want mvn maven
want zkServer.sh zookeeper /usr/share/java/zookeeper.jar
want ip iproute2
[ ${#missing[@]} -eq 0 ] && exit 0
echo "Installing for the tests: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
# Packages must not start servers of their own: the tests start theirs, on ports of their own.
if [ ! -e /usr/sbin/policy-rc.d ]; then
  printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
timeout 300 apt-get update -qq >/dev/null 2>&1
timeout 600 apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1 || echo "Not all could be installed."
exit 0

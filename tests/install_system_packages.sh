#!/usr/bin/env bash
# Installs what the tests marked `system` need from Debian: a browser, Postgres, nginx and faketime.
set -euo pipefail
command -v chromium >/dev/null && command -v faketime >/dev/null && [ -x /usr/sbin/nginx ] && compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null && exit 0
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
as_root apt-get update -qq
as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
  chromium faketime fonts-dejavu-core nginx-light openssl postgresql >/dev/null

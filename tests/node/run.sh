#!/usr/bin/env bash
# The tour once for each major version of the official client.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
status=0
for package in svix svix-1; do
    echo "# $package $(node -p "JSON.parse(require('fs').readFileSync('node_modules/$package/package.json')).version")"
    SVIX_PACKAGE="$package" node --test tour.mjs || status=1
done
exit $status

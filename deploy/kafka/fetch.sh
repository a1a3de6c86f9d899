#!/usr/bin/env bash
# Fetches Kafka's jars into var/kafka/libs; no-op if already fetched.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
libs=$root/var/kafka/libs
[ -f "$libs/.complete" ] && exit 0
mkdir -p "$libs"
mvn --batch-mode --quiet -f "$root/deploy/kafka/pom.xml" dependency:copy-dependencies -DoutputDirectory="$libs"
touch "$libs/.complete"

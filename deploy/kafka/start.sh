#!/usr/bin/env bash
# start.sh PORT DATA_DIR: runs one Kafka node (KRaft) on 127.0.0.1 in the foreground, keeping its data.
set -euo pipefail
[ $# -eq 2 ] || { echo "usage: start.sh PORT DATA_DIR" >&2; exit 2; }
root=$(cd "$(dirname "$0")/../.." && pwd)
libs=$root/var/kafka/libs
[ -f "$libs/.complete" ] || { echo "Kafka is not here yet: run make setup-services" >&2; exit 1; }
port=$1
data=$2
mkdir -p "$data"
config=$data/server.properties
if [ ! -f "$config" ]; then
  cat >"$config" <<EOF
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$((port + 1))
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
log.dirs=$data/log
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
EOF
  java -cp "$libs/*" kafka.tools.StorageTool format --cluster-id "$(head -c 16 /dev/urandom | base64 | tr '+/' 'AZ' | tr -d =)" \
    --config "$config" >/dev/null
fi
exec java -Xms128m -Xmx512m -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$libs/*" kafka.Kafka "$config"

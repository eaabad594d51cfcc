#!/bin/sh
# First acceptance of the gateway: 1,000 Modbus points, a flood of changes, 10,000 messages counted by an independent
# MQTT client, frame latency in the metrics. Needs mosquitto and mosquitto_sub. Run from anywhere; cleans up after itself.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
edge=$here/../../edge
export PATH="$PATH:/usr/sbin"
for program in mosquitto mosquitto_sub; do
    command -v "$program" >/dev/null || { echo "accept: $program is not installed (Debian: mosquitto, mosquitto-clients)" >&2; exit 69; }
done
"$edge" version >&2
python=$here/../../.venv/bin/python
home=$(mktemp -d)
pids=
trap 'for pid in $pids; do kill "$pid" 2>/dev/null || :; done; wait 2>/dev/null || :; rm -rf "$home"' EXIT INT TERM

port() { "$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
plc=$(port) broker=$(port) metrics=$(port)
mkdir "$home/config"
printf 'endpoints:\n  plc: {url: "tcp://127.0.0.1:%s"}\n  broker: {url: "tcp://127.0.0.1:%s"}\n' "$plc" "$broker" >"$home/config/endpoints.yml"
cat >"$home/config/drivers.yml" <<TABLE
gateway: {name: mvp0, tenant: gas, metrics: "127.0.0.1:$metrics"}
drivers:
  plc: {plugin: modbus, endpoint: plc, options: {unit: 1}, scan: {default: 500ms}}
connectors:
  cloud: {plugin: mqtt, endpoint: broker, encoding: json, options: {qos: 1}}
TABLE
"$python" - >"$home/config/variables.yml" <<'ROWS'
print("variables:")
for point in range(1000):
    print(f"  - {{tag: p{point:04}, source: plc, address: 'hr:{point}', type: uint16}}")
ROWS
printf 'listener %s 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nlog_type error\n' "$broker" >"$home/mosquitto.conf"

echo "1. PLC simulator, broker and gateway" >&2
mosquitto -c "$home/mosquitto.conf" & pids="$pids $!"
"$python" "$here/flood_modbus.py" --port "$plc" --points 1000 --pps 500 >&2 & pids="$pids $!"
sleep 1
echo "2. count 10,000 messages under gas/#" >&2
timeout 60 mosquitto_sub -h 127.0.0.1 -p "$broker" -t 'gas/#' -C 10000 -F '%t' >"$home/topics" & counter=$!
pids="$pids $counter"
sleep 1
"$edge" run --home "$home" 2>"$home/gateway.log" & pids="$pids $!"
wait "$counter" || { echo "accept: fewer than 10,000 messages within 60 s" >&2; tail -n 20 "$home/gateway.log" >&2; exit 1; }
messages=$(wc -l <"$home/topics")
topics=$(sort -u "$home/topics" | wc -l)
echo "3. frame latency in the metrics" >&2
"$python" -c 'import sys, urllib.request; sys.stdout.write(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())' \
    "http://127.0.0.1:$metrics/metrics" >"$home/metrics"
grep frame_latency "$home/metrics" >&2
[ "$messages" -eq 10000 ] && [ "$topics" -eq 1000 ]
echo "accepted: $messages messages on $topics topics"

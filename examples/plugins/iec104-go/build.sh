#!/bin/sh
# Builds plugin.wasm; needs Go 1.24 or later. Argument: where it goes.
set -e
cd "$(dirname "$0")"
GOTOOLCHAIN=local GOFLAGS=-mod=mod GOOS=wasip1 GOARCH=wasm go build -trimpath -buildmode=c-shared -ldflags="-s -w" -o "${1:-plugin.wasm}" .

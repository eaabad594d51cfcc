#!/bin/sh
# Builds plugin.wasm; needs componentize-py. Argument: where it goes. Takes half a minute, and makes 18 MB: an interpreter is within.
set -e
cd "$(dirname "$0")"
law=${LAW:-../../../contract}
${COMPONENTIZE:-componentize-py} -d "$law/driver.wit" -w driver componentize app -o "${1:-plugin.wasm}"

#!/bin/sh
# Exits with 0 if the module has the operation that its file is called after: what `graphc reduce --when` asks.
grep -q "= $(basename "$1" .gir)(" "$1"

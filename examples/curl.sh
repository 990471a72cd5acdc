#!/usr/bin/env bash
# Queue a generation, follow it, fetch its picture. Needs a server: make serve
set -euo pipefail
URL="${1:-http://127.0.0.1:8000}"

# 202 with where to follow it. The Idempotency-Key makes it safe to send again.
location=$(curl -fsS -o /dev/null -w '%header{location}' "$URL/v1/generations" \
  -H 'Content-Type: application/json' -H "Idempotency-Key: $RANDOM-$RANDOM" \
  -d '{"prompt": "a red circle on a blue background", "seed": 7}')
echo "queued: $location"

# Server-sent events until it is done.
curl -fsSN "$URL$location/events"

# The whole record, then the first image.
curl -fsS "$URL$location"
echo
curl -fsS "$URL$location/images/0" -o picture.png
echo "wrote picture.png"

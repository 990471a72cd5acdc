#!/usr/bin/env bash
# Draw over a picture of your own, then compare four strengths: examples/edit.sh PHOTO [URL]
# Needs a server: make serve
set -euo pipefail
PHOTO="$1"
URL="${2:-http://127.0.0.1:8000}"

# The fields are one part of the form, the picture is another, as it is.
curl -fsS "$URL/v1/generations" -H 'Prefer: wait=120' -H 'Accept: image/png' \
  -F 'request={"task": "image-to-image", "prompt": "a red circle", "strength": 0.6,
      "width": 128, "height": 128};type=application/json' \
  -F "image=@$PHOTO" -o edited.png
echo "wrote edited.png"

# A sweep: one picture for each strength, and a labelled grid, which is what the answer holds.
curl -fsS "$URL/v1/generations" -H 'Prefer: wait=120' -H 'Accept: image/png' \
  -F 'request={"task": "image-to-image", "prompt": "a red circle", "seed": 7,
      "width": 128, "height": 128,
      "sweep": {"strength": [0.2, 0.4, 0.6, 0.8]}};type=application/json' \
  -F "image=@$PHOTO" -o strengths.png
echo "wrote strengths.png"

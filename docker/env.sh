#!/bin/sh
# Makes .env of .env.example, with a new secret for each that wants one. Never touches one that is
# there: Redis and Grafana keep knowing the old secrets.
set -eu
cd "$(dirname "$0")/.."

if [ -e .env ]; then
    echo ".env is there already; remove it to have another" >&2
    exit 1
fi
umask 077
while IFS= read -r line; do
    case $line in
        *_PASSWORD=) line=$line$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n') ;;
    esac
    printf '%s\n' "$line"
done <.env.example >.env
echo "made .env; say there what is to be served"

#!/bin/sh
# Starts Valkey, or Redis, with docker/redis.conf and a user each for gateways, workers and operators,
# who may do what docs/operations.md says; `ping` asks the one that runs whether it serves.
#
# Passwords come from the environment and go in by a pipe: what is on a command line or in a file is
# read by others.
set -eu

if [ "${1-}" = ping ]; then
    client=$(command -v valkey-cli || command -v redis-cli)
    export VALKEYCLI_AUTH="$REDIS_OPERATOR_PASSWORD" REDISCLI_AUTH="$REDIS_OPERATOR_PASSWORD"
    # MISCONF: its disk is full. It still answers who reads, and to end it would lose what waits to be written.
    case $("$client" --user operator ping 2>&1) in PONG | *MISCONF*) exit 0 ;; *) exit 1 ;; esac
fi

server=$(command -v valkey-server || command -v redis-server)
exec "$server" "${REDIS_CONF:-/etc/darkroom/redis.conf}" - <<END
${REDIS_MAXMEMORY:+maxmemory $REDIS_MAXMEMORY}
user default off resetpass -@all
user gateway on >${REDIS_GATEWAY_PASSWORD:?} resetkeys resetchannels ~rq:* ~darkroom:[^al]* ~darkroom:attempts:* ~darkroom:lease:* ~darkroom:line:* ~darkroom:living:* %R~darkroom:account:* %R~darkroom:accounts %R~darkroom:locked &darkroom:* -@all +@read +@write +@transaction +@connection +@scripting +publish +subscribe +unsubscribe +time -script -@dangerous +script|load +script|exists +info +client|setname
user worker on >${REDIS_WORKER_PASSWORD:?} resetkeys resetchannels ~rq:* ~darkroom:[^al]* ~darkroom:attempts:* ~darkroom:lease:* ~darkroom:line:* ~darkroom:living:* &darkroom:* -@all +@read +@write +@transaction +@connection +@scripting +publish +time -script -@dangerous +script|load +script|exists +info +client|setname
user operator on >${REDIS_OPERATOR_PASSWORD:?} resetkeys resetchannels ~rq:* ~darkroom:* &darkroom:* -@all +@read +@write +@transaction +@connection +@scripting +publish +time -script -@dangerous +script|load +script|exists +info +client|setname
END

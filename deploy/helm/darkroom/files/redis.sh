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

# Else it would be read as rules, or break the URL that it is a part of.
check() {
    case $2 in *[!A-Za-z0-9._~+=,:*!-]*)
        echo "$1 has other characters than letters, digits and . _ ~ + = , : * ! -; openssl rand -hex 24 makes one" >&2
        exit 1
        ;;
    esac
}
check REDIS_GATEWAY_PASSWORD "${REDIS_GATEWAY_PASSWORD:?}"
check REDIS_WORKER_PASSWORD "${REDIS_WORKER_PASSWORD:?}"
check REDIS_OPERATOR_PASSWORD "${REDIS_OPERATOR_PASSWORD:?}"
if [ "$REDIS_OPERATOR_PASSWORD" = "$REDIS_GATEWAY_PASSWORD" ] || [ "$REDIS_OPERATOR_PASSWORD" = "$REDIS_WORKER_PASSWORD" ]; then
    echo "REDIS_OPERATOR_PASSWORD is another's too, who could make keys with it" >&2
    exit 1
fi

server=$(command -v valkey-server || command -v redis-server)
exec "$server" "${REDIS_CONF:-/etc/darkroom/redis.conf}" - <<END
${REDIS_MAXMEMORY:+maxmemory $REDIS_MAXMEMORY}
user default off resetpass -@all
user gateway on >${REDIS_GATEWAY_PASSWORD:?} resetkeys resetchannels ~rq:* ~darkroom:[^al]* ~darkroom:attempts:* ~darkroom:lease:* ~darkroom:line:* ~darkroom:living:* %R~darkroom:account:* %R~darkroom:accounts %R~darkroom:locked &darkroom:* -@all +@read +@write +@transaction +@connection +@scripting +publish +subscribe +unsubscribe +time -script -@dangerous +script|load +script|exists +info +client|setname
user worker on >${REDIS_WORKER_PASSWORD:?} resetkeys resetchannels ~rq:* ~darkroom:[^al]* ~darkroom:attempts:* ~darkroom:lease:* ~darkroom:line:* ~darkroom:living:* &darkroom:* -@all +@read +@write +@transaction +@connection +@scripting +publish +time -script -@dangerous +script|load +script|exists +info +client|setname
user operator on >${REDIS_OPERATOR_PASSWORD:?} resetkeys resetchannels ~rq:* ~darkroom:* &darkroom:* -@all +@read +@write +@transaction +@connection +@scripting +publish +time -script -@dangerous +script|load +script|exists +info +client|setname
END

{{/* What values.schema.json cannot see, because it depends on another value. Each says what to do. */}}

{{- define "darkroom.checks" -}}
{{- include "darkroom.checks.name" . -}}
{{- include "darkroom.checks.secrets" . -}}
{{- include "darkroom.checks.redis" . -}}
{{- include "darkroom.checks.doors" . -}}
{{- include "darkroom.checks.checkpoints" . -}}
{{- $root := . -}}
{{- range $name, $_ := .Values.workers -}}
{{- $worker := include "darkroom.worker" (dict "root" $root "name" $name) | fromYaml -}}
{{- include "darkroom.checks.worker" (dict "root" $root "name" $name "worker" $worker) -}}
{{- end -}}
{{- with .Values.gateway -}}
{{- if lt (int .terminationGracePeriodSeconds) (add 10 (int .drainSeconds) | int) -}}
{{- fail (printf "gateway.terminationGracePeriodSeconds is %d: it must be at least 10 seconds longer than drainSeconds (%d), or gateways are killed while clients wait for what they asked" (int .terminationGracePeriodSeconds) (int .drainSeconds)) -}}
{{- end -}}
{{- with .autoscaling -}}
{{- if and .enabled (lt (int .maxReplicas) (int .minReplicas)) -}}
{{- fail "gateway.autoscaling.maxReplicas is less than minReplicas" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "darkroom.checks.name" -}}
{{- $fullname := include "darkroom.fullname" . -}}
{{- if not (regexMatch "^[a-z]([a-z0-9-]*[a-z0-9])?$" $fullname) -}}
{{- fail (printf "services would be called %s-…, and names of services are of letters, digits and hyphens, and begin with a letter: set fullnameOverride" $fullname) -}}
{{- end -}}
{{- end }}

{{- define "darkroom.checks.secrets" -}}
{{- $secrets := .Values.secrets -}}
{{- $bundled := .Values.redis.bundled -}}
{{- $given := list $secrets.redisUrl $secrets.webhookSecret | concat (values $secrets.redisPasswords) | compact -}}
{{- $passwords := values $secrets.redisPasswords | compact -}}
{{- with $secrets.keys -}}
{{- if and $bundled (lt (len (list .gatewayPassword .workerPassword .operatorPassword | uniq)) 3) -}}
{{- fail "secrets.keys: gatewayPassword, workerPassword and operatorPassword are one key, and so one password: whoever takes a gateway over could make keys as the operator" -}}
{{- end -}}
{{- end -}}
{{- if $secrets.existingSecret -}}
{{- if $given -}}
{{- fail "secrets.existingSecret names a Secret of yours: redisUrl, redisPasswords and webhookSecret belong into it, not into values" -}}
{{- end -}}
{{- else -}}
{{- if and $bundled (lt (len $passwords) 3) -}}
{{- fail "the bundled Redis wants a password each for gateway, worker and operator: name a Secret that has them in secrets.existingSecret (README.md says how to make one), or give secrets.redisPasswords" -}}
{{- end -}}
{{- if and $bundled (lt (len (uniq $passwords)) 3) -}}
{{- fail "secrets.redisPasswords are the same: whoever takes a gateway over could make keys as the operator" -}}
{{- end -}}
{{- if and (not $bundled) (not $secrets.redisUrl) -}}
{{- fail "without redis.bundled, say where your Redis is: name a Secret that has the key redis-url in secrets.existingSecret, or give secrets.redisUrl" -}}
{{- end -}}
{{- if and $bundled $secrets.redisUrl -}}
{{- fail "there are two: redis.bundled brings a Redis, and secrets.redisUrl names one; say redis.bundled: false" -}}
{{- end -}}
{{- if and (not $bundled) $passwords -}}
{{- fail "secrets.redisPasswords are of the bundled Redis; that of yours is a part of secrets.redisUrl" -}}
{{- end -}}
{{- if and .Values.webhooks.enabled (not $secrets.webhookSecret) -}}
{{- fail "webhooks.enabled needs what signs them: the key webhook-secret of secrets.existingSecret, or secrets.webhookSecret" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "darkroom.checks.redis" -}}
{{- with .Values.redis -}}
{{- $most := include "darkroom.mebibytes" .maxmemory | int -}}
{{- $limit := include "darkroom.mebibytes" .resources.limits.memory | int -}}
{{- if and .bundled (lt (mul 2 $limit) (mul 3 $most)) -}}
{{- fail (printf "redis.resources.limits.memory is %s: it must be at least half as much again as redis.maxmemory (%s), or Redis is killed while it writes its file anew" .resources.limits.memory .maxmemory) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Of what Redis or Kubernetes call a size; near enough. */}}
{{- define "darkroom.mebibytes" -}}
{{- $number := regexFind "^[0-9]+" . | int -}}
{{- $unit := regexFind "[a-zA-Z]" . | lower -}}
{{- mul $number (get (dict "m" 1 "g" 1024 "t" 1048576) $unit) -}}
{{- end }}

{{- define "darkroom.checks.doors" -}}
{{- $policy := .Values.networkPolicy -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- fail "ingress.enabled needs ingress.host" -}}
{{- end -}}
{{- if $policy.enabled -}}
{{- if and (not .Values.redis.bundled) (not $policy.redis.to) -}}
{{- fail "say where your Redis is in networkPolicy.redis.to, such as [{ipBlock: {cidr: 10.0.0.5/32}}]: else nobody reaches it" -}}
{{- end -}}
{{- $elsewhere := false -}}
{{- range $policy.clients -}}
{{- if or .namespaceSelector .ipBlock -}}{{- $elsewhere = true -}}{{- end -}}
{{- end -}}
{{- if and (or .Values.ingress.enabled (ne .Values.gateway.service.type "ClusterIP")) (not $elsewhere) -}}
{{- fail "networkPolicy.clients lets in this namespace alone: name that of the ingress controller too, or the addresses that clients come from, such as [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ingress}}}]" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "darkroom.checks.checkpoints" -}}
{{- $checkpoints := include "darkroom.checkpoints" . | fromYamlArray -}}
{{- $default := .Values.defaultCheckpoint -}}
{{- if and (not $default) (gt (len $checkpoints) 1) -}}
{{- fail (printf "say in defaultCheckpoint which of %s draws what names none" (join ", " $checkpoints)) -}}
{{- end -}}
{{- if and $default (not (has $default $checkpoints)) -}}
{{- fail (printf "defaultCheckpoint is %s, which has no worker; there are workers of %s" $default (join ", " $checkpoints)) -}}
{{- end -}}
{{- $scaled := list -}}
{{- range $name, $_ := .Values.workers -}}
{{- $worker := include "darkroom.worker" (dict "root" $ "name" $name) | fromYaml -}}
{{- if $worker.autoscaling.enabled -}}
{{- if has $worker.checkpoint $scaled -}}
{{- fail (printf "two workers of %s have autoscaling, and would both answer the same queue; let one of them have a fixed number of replicas" $worker.checkpoint) -}}
{{- end -}}
{{- $scaled = append $scaled $worker.checkpoint -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* dict root name worker */}}
{{- define "darkroom.checks.worker" -}}
{{- $where := printf "workers.%s" .name -}}
{{- $worker := .worker -}}
{{- $drain := int $worker.drainSeconds -}}
{{- $grace := int $worker.terminationGracePeriodSeconds -}}
{{- if gt (len $worker.fullname) 52 -}}
{{- fail (printf "%s: the name %s is too long by %d; shorten it, or set fullnameOverride" $where $worker.fullname (sub (len $worker.fullname) 52)) -}}
{{- end -}}
{{- if lt $grace (add 10 $drain | int) -}}
{{- fail (printf "%s.terminationGracePeriodSeconds is %d: it must be at least 10 seconds longer than drainSeconds (%d), or the worker is killed before it has handed back what it could not finish" $where $grace $drain) -}}
{{- end -}}
{{- if $worker.autoscaling.enabled -}}
{{- include "darkroom.checks.scaling" (dict "root" .root "where" $where "worker" $worker) -}}
{{- end -}}
{{- end }}

{{/* dict root where worker */}}
{{- define "darkroom.checks.scaling" -}}
{{- $scaling := .worker.autoscaling -}}
{{- $accepts := int .worker.noWorkerSeconds -}}
{{- if not .root.Values.prometheus.address -}}
{{- fail (printf "%s.autoscaling asks Prometheus how much waits: say where it is in prometheus.address" .where) -}}
{{- end -}}
{{- if lt (int $scaling.maxReplicas) (int $scaling.minReplicas) -}}
{{- fail (printf "%s.autoscaling.maxReplicas is less than minReplicas" .where) -}}
{{- end -}}
{{- if lt (int $scaling.cooldownSeconds) (int .worker.drainSeconds) -}}
{{- fail (printf "%s.autoscaling.cooldownSeconds is less than drainSeconds: workers would be stopped in the middle of their last pictures" .where) -}}
{{- end -}}
{{- if and (eq (int $scaling.minReplicas) 0) (lt $accepts (int (add $scaling.cooldownSeconds .worker.startupSeconds))) -}}
{{- fail (printf "%s.noWorkerSeconds is %d: with minReplicas 0 that is how long after its last worker went a checkpoint can still be woken; make it days, or leave it 0" .where $accepts) -}}
{{- end -}}
{{- end }}

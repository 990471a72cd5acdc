{{/* Names, labels and images. */}}

{{- define "darkroom.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* Short enough for what is added to it: names end where DNS labels do. */}}
{{- define "darkroom.fullname" -}}
{{- $name := include "darkroom.name" . -}}
{{- $whole := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $whole .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* dict root component */}}
{{- define "darkroom.selector" -}}
app.kubernetes.io/name: {{ include "darkroom.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{/* dict root component */}}
{{- define "darkroom.labels" -}}
{{ include "darkroom.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* dict root image */}}
{{- define "darkroom.image" -}}
{{- $image := index .root.Values.image .image -}}
{{- $place := $image.repository -}}
{{- if and .root.Values.image.registry (ne .image "redis") -}}
{{- $place = printf "%s/%s" (trimSuffix "/" .root.Values.image.registry) $place -}}
{{- end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $place $image.digest | quote -}}
{{- else -}}
{{- printf "%s:%s" $place (default .root.Chart.AppVersion $image.tag) | quote -}}
{{- end -}}
{{- end }}

{{/* What its series carry with the Prometheus operator, whatever else is in that Prometheus. */}}
{{- define "darkroom.installation" -}}
{{- printf "%s/%s" .Release.Namespace (include "darkroom.fullname" .) -}}
{{- end }}

{{/* Which series are ours, as matchers of PromQL with commas between them. */}}
{{- define "darkroom.matchers" -}}
{{- $labels := .Values.prometheus.matchers -}}
{{- if and (not $labels) .Values.monitoring.enabled -}}
{{- $labels = dict "installation" (include "darkroom.installation" .) -}}
{{- end -}}
{{- $matchers := list -}}
{{- range $label, $value := $labels -}}
{{- $matchers = append $matchers (printf "%s=%q" $label $value) -}}
{{- end -}}
{{- join "," $matchers -}}
{{- end }}

{{- define "darkroom.secret" -}}
{{- default (include "darkroom.fullname" .) .Values.secrets.existingSecret -}}
{{- end }}

{{/* What a worker is in full, as YAML. dict root name */}}
{{- define "darkroom.worker" -}}
{{- $given := default dict (index .root.Values.workers .name) -}}
{{- $worker := mergeOverwrite (deepCopy .root.Values.workerDefaults) (deepCopy $given) -}}
{{- $checkpoint := default .name $worker.checkpoint -}}
{{- $accepts := $worker.noWorkerSeconds -}}
{{- if not $accepts -}}
{{- $scalesToZero := and $worker.autoscaling.enabled (eq (int $worker.autoscaling.minReplicas) 0) -}}
{{- $accepts = ternary 2592000 $worker.startupSeconds $scalesToZero -}}
{{- end -}}
{{- $full := printf "%s-worker-%s" (include "darkroom.fullname" .root) .name -}}
{{- toYaml (mergeOverwrite $worker (dict "checkpoint" $checkpoint "noWorkerSeconds" $accepts "fullname" $full)) -}}
{{- end }}

{{/* The checkpoints that have workers, once each, in a YAML list. */}}
{{- define "darkroom.checkpoints" -}}
{{- $root := . -}}
{{- $found := list -}}
{{- range $name, $_ := .Values.workers -}}
{{- $found = append $found (include "darkroom.worker" (dict "root" $root "name" $name) | fromYaml).checkpoint -}}
{{- end -}}
{{- toYaml ($found | uniq) -}}
{{- end }}

{{/* A value as the text of an environment variable: Helm's numbers are floats, and print as such. */}}
{{- define "darkroom.text" -}}
{{- if kindIs "float64" . -}}
{{- if eq (floor .) . -}}{{- printf "%.0f" . | quote -}}{{- else -}}{{- . | toString | quote -}}{{- end -}}
{{- else -}}
{{- . | toString | quote -}}
{{- end -}}
{{- end }}

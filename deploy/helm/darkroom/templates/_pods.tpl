{{/* What pods of gateways and workers have in common. */}}

{{- define "darkroom.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.podSecurity.user }}
runAsGroup: {{ .Values.podSecurity.group }}
fsGroup: {{ .Values.podSecurity.group }}
# Else each start looks at each picture of a volume.
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "darkroom.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{/* Of a pod's spec. dict root component */}}
{{- define "darkroom.pod" -}}
serviceAccountName: {{ include "darkroom.fullname" .root | quote }}
automountServiceAccountToken: false
# A Service called darkroom would become the setting DARKROOM_PORT, and be none.
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
securityContext:
  {{- include "darkroom.podSecurity" .root | nindent 2 }}
{{- end }}

{{/* Where a pod may run. dict root labels (YAML), and nodeSelector, affinity, priorityClassName */}}
{{- define "darkroom.placement" -}}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- $.labels | nindent 8 }}
  {{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- end }}

{{/* A variable out of the Secret. dict root name key */}}
{{- define "darkroom.fromSecret" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef: { name: {{ include "darkroom.secret" .root | quote }}, key: {{ index .root.Values.secrets.keys .key | quote }} }
{{- end }}

{{/* Where Redis is, and who comes. dict root user */}}
{{- define "darkroom.redis" -}}
{{- if .root.Values.redis.bundled -}}
{{ include "darkroom.fromSecret" (dict "root" .root "name" "REDIS_PASSWORD" "key" (printf "%sPassword" .user)) }}
- name: DARKROOM_REDIS
  value: redis://{{ .user }}:$(REDIS_PASSWORD)@{{ include "darkroom.fullname" .root }}-redis:6379/0
{{- else -}}
{{ include "darkroom.fromSecret" (dict "root" .root "name" "DARKROOM_REDIS" "key" (printf "%sUrl" .user)) }}
{{- end -}}
{{- end }}

{{/* The environment of all. dict root user settings environment; the latter settings win. */}}
{{- define "darkroom.environment" -}}
{{- $values := .root.Values -}}
{{ include "darkroom.redis" (dict "root" .root "user" .user) }}
- name: DARKROOM_STORAGE
  value: {{ default "/images" $values.storage.url | quote }}
- name: DARKROOM_DATA_DIR
  value: /var/lib/darkroom
- name: DARKROOM_METRICS_HOST
  value: 0.0.0.0
- name: DARKROOM_METRICS_PORT
  value: "9100"
{{- if $values.catalog }}
- name: DARKROOM_CATALOG
  value: /etc/darkroom/checkpoints.toml
{{- end }}
{{- if $values.models.existingClaim }}
- name: DARKROOM_MODELS_DIR
  value: /models
{{- end }}
{{- range $name, $value := mergeOverwrite (dict "log_format" "json") (deepCopy $values.settings) .settings }}
- name: DARKROOM_{{ upper $name }}
  value: {{ include "darkroom.text" $value }}
{{- end }}
{{- range $name, $value := mergeOverwrite (deepCopy $values.storage.environment) $values.environment .environment }}
- name: {{ $name | quote }}
  value: {{ include "darkroom.text" $value }}
{{- end }}
{{- range $name, $place := $values.environmentSecrets }}
- name: {{ $name | quote }}
  valueFrom:
    secretKeyRef: { name: {{ $place.secret | quote }}, key: {{ $place.key | quote }} }
{{- end }}
{{- with $values.storage.credentials }}
{{- if .existingSecret }}
{{- range $key := .keys }}
- name: {{ $key | quote }}
  valueFrom:
    secretKeyRef: { name: {{ $values.storage.credentials.existingSecret | quote }}, key: {{ $key | quote }} }
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* dict root data: a folder for what is kept beside the images, among those of other pods. */}}
{{- define "darkroom.mounts" -}}
- { name: tmp, mountPath: /tmp }
- { name: cache, mountPath: /var/lib/darkroom, subPath: {{ .data }} }
- { name: cache, mountPath: /var/cache/huggingface, subPath: huggingface }
{{- with .root }}
{{- if not .Values.storage.url }}
- { name: images, mountPath: /images }
{{- end }}
{{- if .Values.models.existingClaim }}
- { name: models, mountPath: /models, readOnly: true }
{{- end }}
{{- if .Values.catalog }}
- { name: catalog, mountPath: /etc/darkroom, readOnly: true }
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "darkroom.volumes" -}}
- name: tmp
  emptyDir: {}
- name: cache
  {{- with .Values.models.cache }}
  {{- if .existingClaim }}
  persistentVolumeClaim: { claimName: {{ .existingClaim | quote }} }
  {{- else }}
  emptyDir: { sizeLimit: {{ .sizeLimit }} }
  {{- end }}
  {{- end }}
{{- if not .Values.storage.url }}
- name: images
  persistentVolumeClaim:
    claimName: {{ default (printf "%s-images" (include "darkroom.fullname" .)) .Values.storage.volume.existingClaim | quote }}
{{- end }}
{{- if .Values.models.existingClaim }}
- name: models
  persistentVolumeClaim: { claimName: {{ .Values.models.existingClaim | quote }}, readOnly: true }
{{- end }}
{{- if .Values.catalog }}
- name: catalog
  configMap: { name: {{ include "darkroom.fullname" . }}-catalog }
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* So that pods are replaced when what they read once has changed. */}}
{{- define "darkroom.checksums" -}}
checksum/catalog: {{ .Values.catalog | sha256sum | quote }}
{{- if not .Values.secrets.existingSecret }}
checksum/secrets: {{ toJson .Values.secrets | sha256sum | quote }}
{{- end }}
{{- end }}

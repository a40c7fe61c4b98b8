{{/* Labels of one component: dispatcher, housekeeping or batch. Takes root and component. */}}
{{- define "spark-ingest.podLabels" -}}
app.kubernetes.io/name: rates-{{ .component }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/part-of: freight-rates
{{- end -}}

{{- define "spark-ingest.labels" -}}
{{ include "spark-ingest.podLabels" . }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end -}}

{{- define "spark-ingest.image" -}}
{{- with .Values.image -}}
{{- if not .repository }}
{{- fail "image.repository is empty: set it to the registry's path of the image, for example registry.example.com/rates-app" }}
{{- end -}}
{{- if and .digest .tag }}{{ fail "image.digest and image.tag are both set: keep the digest, or the tag for an image that has no digest yet" }}{{ end -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}
{{- else if .tag }}{{ .repository }}:{{ .tag }}
{{- else }}{{ fail "image.digest is empty: no image was released to this stack yet; see 'Promotion' in docs/gitops.md" }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The image of drivers and executors. CI pushes it with the service's image, whose digest is part of its tag. */}}
{{- define "spark-ingest.sparkImage" -}}
{{- $_ := include "spark-ingest.image" . -}}
{{ .Values.image.repository }}:spark-{{ .Values.image.tag | default (.Values.image.digest | trimPrefix "sha256:") }}
{{- end -}}

{{- define "spark-ingest.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "spark-ingest.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}

{{/* The environment of every container that runs the image, whatever its role. */}}
{{- define "spark-ingest.environment" -}}
envFrom:
  - secretRef: { name: {{ .Values.secretName }} }
env:
  - { name: RATES_ENVIRONMENT, value: {{ .Values.environment | quote }} }
  - { name: RATES_VERSION, value: {{ .Values.image.tag | default (.Values.image.digest | trimPrefix "sha256:" | trunc 12) | quote }} }
  - { name: RATES_DATA_DIR, value: /tmp/rates }
  {{- with .Values.aws }}
  {{- if .region }}
  # Arrow reads AWS_REGION, boto3 reads AWS_DEFAULT_REGION.
  - { name: AWS_REGION, value: {{ .region | quote }} }
  - { name: AWS_DEFAULT_REGION, value: {{ .region | quote }} }
  - { name: RATES_INCOMING_QUEUE_URL, value: {{ .incomingQueueUrl | quote }} }
  - { name: RATES_INCOMING_BUCKET, value: {{ .incomingBucket | quote }} }
  - { name: RATES_PROCESSED_BUCKET, value: {{ .processedBucket | quote }} }
  - { name: RATES_REJECTED_BUCKET, value: {{ .rejectedBucket | quote }} }
  {{- end }}
  {{- end }}
  {{- range $name, $value := .Values.settings }}
  - { name: RATES_{{ upper $name }}, value: {{ kindIs "string" $value | ternary $value (toJson $value) | quote }} }
  {{- end }}
{{- end -}}

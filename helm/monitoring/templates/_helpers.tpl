{{- define "monitoring.labels" -}}
{{ include "monitoring.podLabels" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "monitoring.podLabels" -}}
app.kubernetes.io/name: rates-watcher
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: monitoring
app.kubernetes.io/part-of: freight-rates
{{- end -}}

{{- define "monitoring.image" -}}
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

{{- define "image-policy.labels" -}}
app.kubernetes.io/name: image-policy
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: freight-rates
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{/* All images of a repository, and of no repository whose name only begins the same. */}}
{{- define "image-policy.images" -}}
- glob: {{ printf "%s:*" . | quote }}
- glob: {{ printf "%s@*" . | quote }}
{{- end -}}

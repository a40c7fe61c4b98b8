{{/* Labels of one store. Takes root and component. */}}
{{- define "preview-stores.selectorLabels" -}}
app.kubernetes.io/name: preview-stores
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "preview-stores.labels" -}}
{{ include "preview-stores.selectorLabels" . }}
app.kubernetes.io/part-of: freight-rates
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end -}}

{{- define "preview-stores.secretName" -}}
{{ .Values.existingSecret | default .Release.Name }}
{{- end -}}

{{- define "preview-stores.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 999
runAsGroup: 999
fsGroup: 999
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "preview-stores.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}

{{- define "cluster.labels" -}}
app.kubernetes.io/part-of: freight-rates
rates.io/environment: {{ .Values.cluster.environment }}
rates.io/colour: {{ .Values.cluster.colour }}
{{- end -}}

{{/* Nothing is pruned or repaired by hand; a failed sync is tried again until it works. */}}
{{- define "cluster.automated" -}}
automated: { prune: true, selfHeal: true }
retry: { limit: -1, backoff: { duration: 15s, factor: 2, maxDuration: 5m } }
{{- end -}}

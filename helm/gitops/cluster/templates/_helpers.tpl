{{- define "cluster.labels" -}}
app.kubernetes.io/part-of: freight-rates
rates.io/environment: {{ .Values.cluster.environment }}
rates.io/colour: {{ .Values.cluster.colour }}
{{- end -}}

{{/*
Nothing is pruned or repaired by hand. A failed sync is retried for about half an hour, always at the commit that it
began with; then Argo CD takes the branch's newest commit, be it a fix or a revert.
*/}}
{{- define "cluster.automated" -}}
automated: { prune: true, selfHeal: true }
retry: { limit: 8, backoff: { duration: 15s, factor: 2, maxDuration: 5m } }
{{- end -}}

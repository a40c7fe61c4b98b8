{{- define "cluster.labels" -}}
app.kubernetes.io/part-of: freight-rates
rates.io/environment: {{ .Values.cluster.environment }}
rates.io/colour: {{ .Values.cluster.colour }}
{{- end -}}

{{/*
Pruning and self-healing are automatic. Argo CD retries a failed sync for about half an hour at the commit with which it
began, then takes the branch's newest commit.
*/}}
{{- define "cluster.automated" -}}
automated: { prune: true, selfHeal: true }
retry: { limit: 8, backoff: { duration: 15s, factor: 2, maxDuration: 5m } }
{{- end -}}

{{/*
The API server computes what a manifest would become. Otherwise the defaults that a definition adds, such as those of an
ExternalSecret or of a StatefulSet's claims, would always be a difference, and Argo CD would never find them synced.
*/}}
{{- define "cluster.compare" -}}
ServerSideDiff=true
{{- end -}}

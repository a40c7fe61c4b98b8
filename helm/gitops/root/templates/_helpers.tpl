{{/* Fields of the cluster's Secret, which the ApplicationSet controller fills in. */}}
{{- define "gitops.fact" -}}
{{ printf `{{ (index .metadata.annotations "rates.io/facts" | fromJson).%s }}` . }}
{{- end -}}
{{- define "gitops.label" -}}
{{ printf `{{ index .metadata.labels "rates.io/%s" }}` . }}
{{- end -}}

{{/* The values `cluster` as JSON: the facts that Pulumi registers, and the fields that are registered separately. */}}
{{- define "gitops.clusterFacts" -}}
{{ `{{ mergeOverwrite (index .metadata.annotations "rates.io/facts" | fromJson) (dict
  "server" .server
  "standby" (default "" (index .metadata.annotations "rates.io/standby"))
  "environment" (index .metadata.labels "rates.io/environment")
  "colour" (index .metadata.labels "rates.io/colour")
  "size" (index .metadata.labels "rates.io/size")) | toJson }}` }}
{{- end -}}

{{- define "gitops.runbooks" -}}
{{ trimSuffix ".git" .Values.repoURL }}/blob/{{ .Values.revision }}/runbooks
{{- end -}}

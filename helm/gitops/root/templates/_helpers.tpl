{{/* Fields of the cluster's Secret, which the ApplicationSet controller fills in. A cluster outside AWS lacks some. */}}
{{- define "gitops.annotation" -}}
{{ printf `{{ default "" (index .metadata.annotations "rates.io/%s") }}` . }}
{{- end -}}
{{- define "gitops.label" -}}
{{ printf `{{ index .metadata.labels "rates.io/%s" }}` . }}
{{- end -}}

{{/* The facts about the cluster that Pulumi registers. */}}
{{- define "gitops.clusterFacts" -}}
name: '{{ include "gitops.annotation" "cluster-name" }}'
server: '{{ `{{ .server }}` }}'
{{- range list "environment" "colour" "size" }}
{{ . }}: '{{ include "gitops.label" . }}'
{{- end }}
{{- range list "region" "hosts" "certificate-arn" "target-group-arn" "registry" "database-secret" "cache-secret" "notify-secret" "incoming-bucket" "processed-bucket" "rejected-bucket" "incoming-queue-url" "alerts-topic-arn" "vpc-id" "standby" "provided-addons" }}
{{ camelcase (replace "-" "_" .) | untitle }}: '{{ include "gitops.annotation" . }}'
{{- end }}
{{- end -}}

{{- define "gitops.runbooks" -}}
{{ trimSuffix ".git" .Values.repoURL }}/blob/{{ .Values.revision }}/runbooks
{{- end -}}

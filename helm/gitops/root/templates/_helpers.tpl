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

{{/*
The approved commits of pull requests: a member has added the label that names the commit. A later commit has no label
yet, so the preview ends until that commit is approved, too. A list with no element removes a pull request; selectors do
not find the values of Go templates.
*/}}
{{- define "gitops.approvedCommits" -}}
{{- $label := printf `(printf "%s-%%s" .head_sha)` .Values.previews.label -}}
- matrix:
    generators:
      - matrix:
          generators:
            - pullRequest:
                github:
                  owner: {{ .Values.previews.owner }}
                  repo: {{ .Values.previews.repo }}
                  {{- with .Values.previews.api }}
                  api: {{ . }}
                  {{- end }}
                  {{- with .Values.previews.tokenSecret }}
                  tokenRef: { secretName: {{ . }}, key: token }
                  {{- end }}
                {{- /* The service's application is refused until that of the environment has created its project. */}}
                requeueAfterSeconds: 60
            - list:
                elements: []
                elementsYaml: '{{ printf `{{ if has %s .labels }}[{ approved: yes }]{{ else }}[]{{ end }}` $label }}'
      - clusters:
          selector:
            matchLabels: { rates.io/environment: dev, rates.io/colour: {{ .Values.previews.colour }} }
{{- end -}}

{{- define "gitops.previewSync" -}}
syncPolicy:
  automated: { prune: true, selfHeal: true }
  syncOptions: [ServerSideApply=true]
  retry: { limit: 5, backoff: { duration: 15s, factor: 2, maxDuration: 5m } }
{{- end -}}

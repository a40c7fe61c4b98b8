{{- define "rates-app.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else -}}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "rates-app.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Without the chart's version, because a new chart version alone must not replace pods. */}}
{{- define "rates-app.podLabels" -}}
{{ include "rates-app.selectorLabels" . }}
app.kubernetes.io/component: server
app.kubernetes.io/part-of: freight-rates
{{- end -}}

{{- define "rates-app.labels" -}}
{{ include "rates-app.podLabels" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{/* Labels of a Job and its pods. They must not match the selectors of the Service and the disruption budget. */}}
{{- define "rates-app.jobLabels" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}-{{ .component }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/part-of: freight-rates
{{- end -}}

{{- define "rates-app.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default (include "rates-app.fullname" .) }}
{{- end -}}

{{/* The Secret of a role's pods. Takes root and role. The service's has the release's name. */}}
{{- define "rates-app.roleSecretName" -}}
{{- $name := include "rates-app.fullname" .root -}}
{{ .root.Values.secrets.existing | default (ternary $name (printf "%s-%s" $name .role) (eq .role "serving")) }}
{{- end -}}

{{- define "rates-app.image" -}}
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

{{/* The drain and grace periods, then time to exit, so that SIGKILL never ends a request. */}}
{{- define "rates-app.terminationSeconds" -}}
{{ add .Values.shutdown.drainSeconds .Values.shutdown.graceSeconds 10 }}
{{- end -}}

{{/* Services through which clients reach the pods, as JSON. */}}
{{- define "rates-app.serviceNames" -}}
{{- $name := include "rates-app.fullname" . -}}
{{- $names := list $name -}}
{{- if eq .Values.strategy.type "blueGreen" }}{{ $names = append $names (printf "%s-preview" $name) }}{{ end -}}
{{- if and (eq .Values.strategy.type "canary") (include "rates-app.usesALB" .) }}{{ $names = append $names (printf "%s-canary" $name) }}{{ end -}}
{{- toJson $names -}}
{{- end -}}

{{- define "rates-app.usesALB" -}}
{{- if and .Values.ingress.enabled (eq .Values.ingress.className "alb") }}true{{ end -}}
{{- end -}}

{{- define "rates-app.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "rates-app.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}

{{/*
Names by which clients may address the service, joined by commas: those of users, the Services in the cluster, and
localhost for port forwarding. Probes and health checks of load balancers use the operations port, which takes any name.
*/}}
{{- define "rates-app.allowedHosts" -}}
{{- $hosts := .Values.hosts -}}
{{- if .Values.ingress.enabled }}{{ $hosts = append $hosts .Values.ingress.host }}{{ end -}}
{{- if .Values.gateway.enabled }}{{ $hosts = append $hosts .Values.gateway.host }}{{ end -}}
{{- if and .Values.targetGroup.arn (not $hosts) }}{{ fail "hosts is empty: name the hosts that clients of targetGroup.arn use" }}{{ end -}}
{{- range $service := include "rates-app.serviceNames" . | fromJsonArray -}}
{{- range $suffix := list "" ".NS" ".NS.svc" ".NS.svc.cluster.local" -}}
{{- $hosts = append $hosts (print $service (replace "NS" $.Release.Namespace $suffix)) -}}
{{- end -}}
{{- end -}}
{{- concat $hosts (list "localhost" "127.0.0.1") | join "," | lower -}}
{{- end -}}

{{/* The settings. A load balancer implies one trusted proxy, and HTTPS if it has a certificate. */}}
{{- define "rates-app.settings" -}}
{{- $implied := dict -}}
{{- if .Values.ingress.enabled -}}
{{- $implied = dict "trusted_proxies" 1 "require_https" (not (empty .Values.ingress.certificateArn)) -}}
{{- else if .Values.targetGroup.arn -}}
{{- $implied = dict "trusted_proxies" 1 "require_https" true -}}
{{- else if .Values.gateway.enabled -}}
{{- $implied = dict "trusted_proxies" 1 -}}
{{- end -}}
{{- $_ := set $implied "allowed_hosts" (include "rates-app.allowedHosts" .) -}}
{{- mergeOverwrite $implied .Values.settings | toYaml -}}
{{- end -}}

{{/* The environment of every container that runs the image. Takes root and role. */}}
{{- define "rates-app.environment" -}}
envFrom:
  - secretRef: { name: {{ include "rates-app.roleSecretName" . }} }
{{- with .root }}
env:
  - { name: RATES_ENVIRONMENT, value: {{ .Values.environment | quote }} }
  - { name: RATES_VERSION, value: {{ .Values.image.tag | default (.Values.image.digest | trimPrefix "sha256:" | trunc 12) | quote }} }
  - { name: RATES_DATA_DIR, value: /tmp/rates }
  - { name: RATES_DRAIN_SECONDS, value: {{ .Values.shutdown.drainSeconds | quote }} }
  - { name: RATES_GRACE_SECONDS, value: {{ .Values.shutdown.graceSeconds | quote }} }
  {{- with .Values.aws }}
  {{- if .region }}
  # Arrow reads AWS_REGION, boto3 reads AWS_DEFAULT_REGION.
  - { name: AWS_REGION, value: {{ .region | quote }} }
  - { name: AWS_DEFAULT_REGION, value: {{ .region | quote }} }
  - { name: RATES_INCOMING_BUCKET, value: {{ .incomingBucket | quote }} }
  - { name: RATES_PROCESSED_BUCKET, value: {{ .processedBucket | quote }} }
  - { name: RATES_REJECTED_BUCKET, value: {{ .rejectedBucket | quote }} }
  {{- end }}
  {{- end }}
  {{- range $name, $value := include "rates-app.settings" . | fromYaml }}
  - { name: RATES_{{ upper $name }}, value: {{ kindIs "string" $value | ternary $value (toJson $value) | quote }} }
  {{- end }}
{{- end }}
{{- end -}}

{{/* The pod template that the Deployment and the Rollout share. */}}
{{- define "rates-app.podTemplate" -}}
metadata:
  labels:
    {{- include "rates-app.podLabels" . | nindent 4 }}
  annotations:
    kubectl.kubernetes.io/default-container: server
spec:
  serviceAccountName: {{ include "rates-app.serviceAccountName" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- with .Values.priorityClass.name }}
  priorityClassName: {{ . }}
  {{- end }}
  terminationGracePeriodSeconds: {{ include "rates-app.terminationSeconds" . }}
  securityContext:
    {{- include "rates-app.podSecurityContext" . | nindent 4 }}
  topologySpreadConstraints:
    {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - topologyKey: {{ $key }}
      maxSkew: 1
      # An uneven distribution is better than a pending pod that waits for a zone to recover.
      whenUnsatisfiable: ScheduleAnyway
      nodeTaintsPolicy: Honor
      matchLabelKeys: [{{ ternary "pod-template-hash" "rollouts-pod-template-hash" (eq $.Values.strategy.type "rolling") }}]
      labelSelector:
        matchLabels:
          {{- include "rates-app.selectorLabels" $ | nindent 10 }}
    {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: server
      image: {{ include "rates-app.image" . }}
      args: [serve]
      {{- include "rates-app.environment" (dict "root" . "role" "serving") | nindent 6 }}
        {{- if not .Values.secrets.existing }}
        # libpq reads the login from this file for each connection, so a rotation needs no restart.
        - { name: PGSERVICE, value: rates }
        - { name: PGSERVICEFILE, value: /etc/rates-login/pg_service.conf }
        {{- end }}
      ports:
        - { name: http, containerPort: 8080, protocol: TCP }
        - { name: operations, containerPort: 8081, protocol: TCP }
      startupProbe:
        httpGet: { path: /healthz, port: operations }
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 45
      livenessProbe:
        httpGet: { path: /healthz, port: operations }
        periodSeconds: 10
        timeoutSeconds: 5
        # One minute: a restart helps a process that hangs, but harms one that is busy.
        failureThreshold: 6
      readinessProbe:
        httpGet: { path: /readyz, port: operations }
        periodSeconds: 5
        timeoutSeconds: 3
        failureThreshold: 2
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        {{- include "rates-app.containerSecurityContext" . | nindent 8 }}
      volumeMounts:
        - { name: tmp, mountPath: /tmp }
        {{- if not .Values.secrets.existing }}
        - { name: login, mountPath: /etc/rates-login, readOnly: true }
        {{- end }}
  volumes:
    - name: tmp
      emptyDir: { sizeLimit: {{ .Values.temporarySpace }} }
    {{- if not .Values.secrets.existing }}
    - name: login
      secret:
        secretName: {{ include "rates-app.roleSecretName" (dict "root" . "role" "serving") }}
        items: [{ key: pg_service.conf, path: pg_service.conf }]
    {{- end }}
{{- end -}}

{{/*
A container that runs a command. Takes root, role, name and args; command: instead of the image's; resources: instead of
those of the service.
*/}}
{{- define "rates-app.jobContainer" -}}
- name: {{ .name }}
  image: {{ include "rates-app.image" .root }}
  {{- with .command }}
  command: {{ toJson . }}
  {{- end }}
  args: {{ toJson .args }}
  {{- include "rates-app.environment" . | nindent 2 }}
  resources:
    {{- toYaml (.resources | default .root.Values.resources) | nindent 4 }}
  securityContext:
    {{- include "rates-app.containerSecurityContext" .root | nindent 4 }}
  volumeMounts:
    - { name: tmp, mountPath: /tmp }
{{- end -}}

{{/*
A Job of one pod that runs a command of the image with the login of the database's owner. Takes root, component, args,
annotations; first: an init command.
*/}}
{{- define "rates-app.job" -}}
{{- $root := .root -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ include "rates-app.fullname" $root }}-{{ .component }}
  labels:
    {{- include "rates-app.jobLabels" . | nindent 4 }}
  annotations:
    {{- .annotations | nindent 4 }}
spec:
  # A fixed name allows one Job at a time in this cluster. The command's advisory lock excludes other clusters.
  parallelism: 1
  completions: 1
  backoffLimit: 3
  activeDeadlineSeconds: {{ $root.Values.migration.deadlineSeconds }}
  template:
    metadata:
      labels:
        {{- include "rates-app.jobLabels" . | nindent 8 }}
    spec:
      restartPolicy: Never
      # The Job needs no service account. The chart's account does not exist before the first release.
      serviceAccountName: default
      automountServiceAccountToken: false
      enableServiceLinks: false
      {{- with $root.Values.priorityClass.name }}
      priorityClassName: {{ . }}
      {{- end }}
      {{- with $root.Values.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $root.Values.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        {{- include "rates-app.podSecurityContext" $root | nindent 8 }}
      {{- with .first }}
      initContainers:
        {{- include "rates-app.jobContainer" (dict "root" $root "role" "owner" "name" "first" "args" .) | nindent 8 }}
      {{- end }}
      containers:
        {{- include "rates-app.jobContainer" (dict "root" $root "role" "owner" "name" .component "args" .args) | nindent 8 }}
      volumes:
        - name: tmp
          emptyDir: { sizeLimit: {{ $root.Values.temporarySpace }} }
{{- end -}}

{{/*
Queries SERVICE for one day's rate and fails unless the response has the format that clients depend on. It is written
in Python because the image has no HTTP tools.
*/}}
{{- define "rates-app.askRate" -}}
command:
  - python
  - -c
  - |
    import json, os, sys, urllib.parse, urllib.request
    query = urllib.parse.urlencode({
        "date_from": os.environ["DAY"], "date_to": os.environ["DAY"],
        "orig_code": os.environ["ORIGIN"], "dest_code": os.environ["DESTINATION"],
    })
    with urllib.request.urlopen(f"http://{os.environ['SERVICE']}/rates?{query}", timeout=10) as answer:
        rates = json.load(answer)["rates"]
    print(json.dumps(rates))
    if [rate["day"] for rate in rates] != [os.environ["DAY"]] or not {"count", "price"} <= rates[0].keys():
        sys.exit("the answer is not one rate for the day that was asked for")
    if os.environ["REQUIRE_PRICE"] == "true" and rates[0]["price"] is None:
        sys.exit("there is no price for that lane and day: are the batches published?")
env:
  - { name: DAY, value: {{ .root.Values.test.day | quote }} }
  - { name: ORIGIN, value: {{ .root.Values.test.origin | quote }} }
  - { name: DESTINATION, value: {{ .root.Values.test.destination | quote }} }
  - { name: REQUIRE_PRICE, value: {{ .root.Values.test.requirePrice | quote }} }
  - { name: SERVICE, value: {{ .service | quote }} }
image: {{ include "rates-app.image" .root }}
resources:
  requests: { cpu: 50m, memory: 64Mi, ephemeral-storage: 16Mi }
  limits: { cpu: 500m, memory: 128Mi, ephemeral-storage: 64Mi }
securityContext:
  {{- include "rates-app.containerSecurityContext" .root | nindent 2 }}
{{- end -}}

{{- define "rates-app.rolloutStrategy" -}}
{{- $name := include "rates-app.fullname" . -}}
{{- if eq .Values.strategy.type "blueGreen" -}}
blueGreen:
  activeService: {{ $name }}
  previewService: {{ $name }}-preview
  autoPromotionEnabled: true
  # The old pods keep running this long after the switch, so that a rollback is a switch, too.
  scaleDownDelaySeconds: {{ .Values.strategy.previewSeconds }}
  prePromotionAnalysis:
    templates: [{ templateName: {{ $name }}-smoke }, { templateName: {{ $name }}-staleness }]
    args:
      - { name: pods, valueFrom: { podTemplateHashValue: Latest } }
  postPromotionAnalysis:
    templates: [{ templateName: {{ $name }}-traffic }]
    args:
      - { name: pods, valueFrom: { podTemplateHashValue: Latest } }
{{- else -}}
canary:
  maxSurge: 25%
  maxUnavailable: 0
  {{- if include "rates-app.usesALB" . }}
  stableService: {{ $name }}
  canaryService: {{ $name }}-canary
  trafficRouting:
    alb:
      ingress: {{ $name }}
      servicePort: 80
  {{- end }}
  analysis:
    # Start at the first step, because the new pods get no requests before it.
    startingStep: 1
    templates: [{ templateName: {{ $name }}-traffic }, { templateName: {{ $name }}-staleness }]
    args:
      - { name: pods, valueFrom: { podTemplateHashValue: Latest } }
  steps:
    {{- range .Values.strategy.canarySteps }}
    - setWeight: {{ .weight }}
    - pause: { duration: {{ .pauseSeconds }}s }
    {{- end }}
{{- end -}}
{{- end -}}

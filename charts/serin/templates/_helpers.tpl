{{- define "serin.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "serin.fullname" -}}
{{- $name := include "serin.name" . -}}
{{- $release := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- .Values.fullnameOverride | default $release | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* Names without a namespace: another release elsewhere must not share them. */}}
{{- define "serin.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "serin.fullname" .) -}}
{{- end -}}

{{- define "serin.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (include "serin.fullname" .) -}}
{{- end -}}

{{- define "serin.selectorLabels" -}}
app.kubernetes.io/name: {{ include "serin.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "serin.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "serin.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: serin
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* An image by its digest or its tag. Takes a list: the root context, the image's values. */}}
{{- define "serin.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository ($image.tag | default $root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/*
The operator's rights where it runs ModelDeployments. Writes are server-side apply, which needs create and patch.
Secrets: it makes a random key once and never reads one.
*/}}
{{- define "serin.rules" -}}
- apiGroups: [serin.dev]
  resources: [modeldeployments]
  verbs: [get, list, watch]
- apiGroups: [serin.dev]
  resources: [modeldeployments/status]
  verbs: [update]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, configmaps]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- if .Values.routers.gatewayAPI.enabled }}
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes, grpcroutes]
  verbs: [get, list, watch, create, patch, delete]
{{- end }}
{{- if .Values.routers.istio.enabled }}
- apiGroups: [networking.istio.io]
  resources: [virtualservices, destinationrules]
  verbs: [get, list, watch, create, patch, delete]
{{- end }}
{{- end -}}

{{/* The routers that the operator may use besides those that are always there, with commas between them. */}}
{{- define "serin.routers" -}}
{{- $routers := list -}}
{{- if .Values.routers.gatewayAPI.enabled }}{{ $routers = append $routers "GatewayAPI" }}{{ end -}}
{{- if .Values.routers.istio.enabled }}{{ $routers = append $routers "Istio" }}{{ end -}}
{{- join "," $routers -}}
{{- end -}}

{{- define "akoya-gateway.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* The name of all objects. The name of the release alone where it contains that of the chart. */}}
{{- define "akoya-gateway.fullname" -}}
{{- $name := include "akoya-gateway.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "akoya-gateway.selectorLabels" -}}
app.kubernetes.io/name: {{ include "akoya-gateway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "akoya-gateway.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "akoya-gateway.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* The pod of `helm test`. Not the selector's labels, by which the Services would send it requests. */}}
{{- define "akoya-gateway.testLabels" -}}
app.kubernetes.io/component: test
app.kubernetes.io/part-of: {{ include "akoya-gateway.fullname" . }}
{{- end -}}

{{/* Admits that pod through the network policy. */}}
{{- define "akoya-gateway.testPods" -}}
- podSelector:
    matchLabels: {{- include "akoya-gateway.testLabels" . | nindent 6 }}
{{- end -}}

{{- define "akoya-gateway.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "akoya-gateway.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "akoya-gateway.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* gateway.yaml: the values of the operator over the keys that the ports of the pod decide. */}}
{{- define "akoya-gateway.config" -}}
{{- $ports := dict "version" 1 "listen" (printf "0.0.0.0:%v" .Values.ports.http) "admin" (dict "listen" (printf "0.0.0.0:%v" .Values.ports.admin)) -}}
{{- toYaml (mergeOverwrite $ports (deepCopy .Values.config)) -}}
{{- end -}}

{{/* Mistakes that a cluster would show much later. */}}
{{- define "akoya-gateway.validate" -}}
{{- if and .Values.config .Values.existingConfigMap -}}
{{- fail "config and existingConfigMap are both set: gateway.yaml can come from one of them only" -}}
{{- end -}}
{{- if not (or .Values.config .Values.existingConfigMap) -}}
{{- fail "config is empty: write your gateway.yaml below it, or name a ConfigMap with the key gateway.yaml in existingConfigMap" -}}
{{- end -}}
{{- $store := dig "sessions" "store" "" .Values.config -}}
{{- $several := or .Values.autoscaling.enabled (gt (int .Values.replicas) 1) -}}
{{- if and $several (kindIs "string" $store) (or (hasPrefix "memory:" $store) (hasPrefix "sqlite:" $store)) -}}
{{- fail (printf "config.sessions.store is %s, which replicas cannot share: use redis://, or set replicas: 1" $store) -}}
{{- end -}}
{{- end -}}

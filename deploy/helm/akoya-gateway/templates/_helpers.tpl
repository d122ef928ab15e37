{{- define "akoya-gateway.name" -}}
{{- printf "%s-akoya-gateway" .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- define "akoya-gateway.labels" -}}
app.kubernetes.io/name: akoya-gateway
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

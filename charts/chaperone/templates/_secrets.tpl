{{- /* every Secret that the Pods would wait for, with the keys that they need: a YAML list of {namespace, name, keys} */ -}}
{{- define "chaperone.neededSecrets" -}}
{{- $gateway := .Values.gateway -}}
- namespace: {{ .Release.Namespace }}
  name: {{ $gateway.existingSecret }}
  keys:
    - user-tokens
    {{- if not .Values.identity.enabled }}
    - sandbox-tokens
    {{- end }}
    {{- if include "chaperone.onPostgres" . }}
    - {{ $gateway.store.secretKey }}
    {{- end }}
{{- with $gateway.tls.existingSecret }}
- {namespace: {{ $.Release.Namespace }}, name: {{ . }}, keys: [tls.crt, tls.key]}
{{- end }}
{{- range $part := list
  (dict "values" .Values.sandbox "namespace" .Values.namespaces.sandbox)
  (dict "values" .Values.agent "namespace" .Values.namespaces.agents) }}
{{- if $part.values.enabled }}
- namespace: {{ $part.namespace }}
  name: {{ $part.values.existingSecret }}
  keys:
    {{- if not $.Values.identity.enabled }}
    - gateway-token
    {{- end }}
    {{- if $part.values.apiToken }}
    - api-token
    {{- end }}
    {{- if $.Values.legacyInternalSecret }}
    - gateway-internal-secret
    {{- end }}
{{- end }}
{{- end }}
{{- if and .Values.sandboxes.enabled .Values.sandboxes.apiToken }}
- {namespace: {{ .Values.namespaces.sandbox }}, name: {{ .Values.sandboxes.existingSecret }}, keys: [api-token]}
{{- end }}
{{- end -}}

{{- /* peers: everybody of a namespace, told by the label that Kubernetes itself sets */}}
{{- define "chaperone.namespacePeer" -}}
namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ . }}}}
{{- end }}
{{- define "chaperone.gatewayPeer" -}}
namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ .Release.Namespace }}}}
podSelector:
  matchLabels: {{ include "chaperone.selector" (dict "root" . "component" "gateway") | nindent 4 }}
{{- end }}
{{- /* who may call agents and sandboxes: the gateway, and `helm test` in its place */}}
{{- define "chaperone.callerPeer" -}}
namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ .Release.Namespace }}}}
podSelector: {matchLabels: {openhive.io/calls-sandboxes: "true"}}
{{- end }}
{{- define "chaperone.dnsRule" -}}
- to:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ .namespace }}}}
      podSelector:
        matchLabels: {{ toYaml .podLabels | nindent 10 }}
  ports: [{protocol: UDP, port: {{ .port }}}, {protocol: TCP, port: {{ .port }}}]
{{- end }}

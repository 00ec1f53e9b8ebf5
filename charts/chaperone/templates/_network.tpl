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
{{- define "chaperone.ports" -}}
[{{- range $i, $port := . }}{{ if $i }}, {{ end }}{protocol: TCP, port: {{ $port }}}{{ end }}]
{{- end }}
{{- /* an egress rule to what lies outside the cluster; takes {cidrs, peers, ports} */}}
{{- define "chaperone.outsideRule" -}}
- to:
    {{- range .cidrs }}
    - {ipBlock: {cidr: {{ . }}}}
    {{- end }}
    {{- with .peers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports: {{ include "chaperone.ports" .ports }}
{{- end }}
{{- /* a rule without peers would open the port to everywhere, so an empty one is refused */}}
{{- define "chaperone.databaseRule" -}}
{{- $database := .Values.networkPolicies.database }}
{{- if not (or $database.cidrs $database.peers) }}
{{- fail "networkPolicies.database.cidrs or networkPolicies.database.peers must say where the PostgreSQL server is, because gateway.store.kind is postgres" }}
{{- end }}
{{- include "chaperone.outsideRule" $database }}
{{- end }}
{{- /* 000-19 */}}
{{- define "chaperone.apiServerRule" -}}
{{- $server := .Values.networkPolicies.apiServer }}
{{- if not $server.cidrs }}
{{- fail "networkPolicies.apiServer.cidrs must have the API server's addresses, because sandboxes.enabled or identity.enabled: that of its Service and its own (kubectl -n default get service,endpointslices kubernetes)" }}
{{- end }}
{{- include "chaperone.outsideRule" $server }}
{{- end }}

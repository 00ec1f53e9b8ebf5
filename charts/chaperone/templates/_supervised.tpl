{{- /*
A Deployment, Service and ServiceAccount whose container is run by the supervisor: the shared sandbox and the static agent.
Takes what `chaperone.podSpec` takes, and a namespace.
*/ -}}
{{- define "chaperone.supervised" -}}
{{- $values := .values }}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ .name }}
  namespace: {{ .namespace }}
  labels: {{ include "chaperone.labels" . | nindent 4 }}
automountServiceAccountToken: false
---
apiVersion: v1
kind: Service
metadata:
  name: {{ .name }}
  namespace: {{ .namespace }}
  labels: {{ include "chaperone.labels" . | nindent 4 }}
spec:
  selector: {{ include "chaperone.selector" . | nindent 4 }}
  ports:
    - {name: http, port: {{ $values.port }}, targetPort: http}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .name }}
  namespace: {{ .namespace }}
  labels: {{ include "chaperone.labels" . | nindent 4 }}
spec:
  replicas: 1
  # Two Pods with one identity would take the session from each other.
  strategy: {type: Recreate}
  selector:
    matchLabels: {{ include "chaperone.selector" . | nindent 6 }}
  template:
    metadata:
      labels: {{ include "chaperone.labels" . | nindent 8 }}
      annotations:
        openhive.io/agent-id: {{ $values.agentId | quote }}
        openhive.io/controller-id: {{ printf "helm/%s" .root.Release.Name | quote }}
        {{- with $values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      {{- include "chaperone.podSpec" . | trim | nindent 6 }}
{{- end -}}

{{- /* the init container that copies an agent's defaults, once (000-26) */ -}}
{{- define "chaperone.bootstrap" }}
- name: config-bootstrap
  image: {{ include "chaperone.image" (dict "name" "agent.image" "image" .Values.agent.image) | quote }}
  imagePullPolicy: {{ .Values.agent.image.pullPolicy }}
  command: [/chaperone/supervisor, bootstrap, --only, defaults]
  env:
    - {name: SUPERVISOR_BOOTSTRAP_SOURCE, value: {{ .Values.agent.config.source }}}
    - {name: SUPERVISOR_BOOTSTRAP_TARGET, value: {{ .Values.agent.config.path }}}
  securityContext: {{ include "chaperone.containerSecurity" . | nindent 4 }}
  resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {memory: 64Mi}}
  volumeMounts:
    - {name: chaperone, mountPath: /chaperone, readOnly: true}
    - {name: config, mountPath: {{ .Values.agent.config.path }}}
{{- end }}

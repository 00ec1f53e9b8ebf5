{{- /*
A Deployment, Service and ServiceAccount whose container is run by the supervisor: the shared sandbox and the static agent.
Takes {root, component, name, namespace, key, values, mounts, volumes, init, env}; the last four are YAML lists as text.
*/ -}}
{{- define "chaperone.supervised" -}}
{{- $values := .values }}
{{- $image := include "chaperone.image" (dict "name" (printf "%s.image" .key) "image" $values.image) }}
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
      serviceAccountName: {{ .name }}
      {{- include "chaperone.placement" . | nindent 6 }}
      securityContext: {{ include "chaperone.podSecurity" $values.user | nindent 8 }}
      terminationGracePeriodSeconds: {{ add $values.grace 5 }}
      {{- $init := printf "%s\n%s" (include "chaperone.install" .root) (.init | default "") | trim }}
      {{- with $init }}
      initContainers:
        {{- . | nindent 8 }}
      {{- end }}
      containers:
        - name: {{ .component }}
          image: {{ $image | quote }}
          imagePullPolicy: {{ $values.image.pullPolicy }}
          command: [/chaperone/supervisor, run]
          {{- with $values.argv }}
          args: {{ prepend . "--" | toYaml | nindent 12 }}
          {{- end }}
          env:
            - {name: SUPERVISOR_LISTEN, value: "[::]:{{ $values.port }}"}
            - {name: SUPERVISOR_GRACE, value: {{ $values.grace }}s}
            - {name: SUPERVISOR_AGENT_ID, value: {{ $values.agentId | quote }}}
            - {name: SUPERVISOR_CONTROLLER_ID, value: {{ printf "helm/%s" .root.Release.Name | quote }}}
            - {name: SUPERVISOR_GATEWAY_URL, value: {{ include "chaperone.gatewayUrl" .root | quote }}}
            - {name: SUPERVISOR_LINK_TOKEN_FILE, value: /etc/chaperone/gateway-token/token}
            {{- if .root.Values.gateway.tls.existingSecret }}
            - {name: SUPERVISOR_LINK_CA_FILE, value: /etc/chaperone/ca/ca.crt}
            {{- else }}
            - {name: SUPERVISOR_LINK_PLAIN, value: "true"}
            {{- end }}
            {{- if $values.apiToken }}
            - {name: SUPERVISOR_API_TOKEN_FILE, value: /etc/chaperone/api-token/token}
            {{- end }}
            - {name: SUPERVISOR_AGENT_ENV_ALLOW, value: {{ join "," $values.envAllow | quote }}}
            - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
            - {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
            - {name: POD_UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
            {{- /* 000-68: a key that is not in the Secret is no reason not to start. */}}
            {{- range $values.envAllow }}
            - name: {{ . }}
              valueFrom: {secretKeyRef: {name: {{ $values.existingSecret }}, key: {{ lower . | replace "_" "-" }}, optional: true}}
            {{- end }}
            {{- with .env }}
            {{- . | nindent 12 }}
            {{- end }}
            {{- range $name, $value := $values.settings }}
            - {name: {{ $name }}, value: {{ $value | quote }}}
            {{- end }}
          ports: [{name: http, containerPort: {{ $values.port }}}]
          startupProbe: {httpGet: {path: /startupz, port: http}, periodSeconds: 1, failureThreshold: 60, timeoutSeconds: 2}
          livenessProbe: {httpGet: {path: /livez, port: http}, periodSeconds: 15, failureThreshold: 4, timeoutSeconds: 3}
          readinessProbe: {httpGet: {path: /readyz, port: http}, periodSeconds: 5, timeoutSeconds: 2}
          terminationMessagePolicy: FallbackToLogsOnError
          securityContext: {{ include "chaperone.containerSecurity" . | nindent 12 }}
          resources: {{ toYaml $values.resources | nindent 12 }}
          volumeMounts:
            - {name: chaperone, mountPath: /chaperone, readOnly: true}
            - {name: gateway-token, mountPath: /etc/chaperone/gateway-token, readOnly: true}
            {{- if .root.Values.gateway.tls.existingSecret }}
            - {name: ca, mountPath: /etc/chaperone/ca, readOnly: true}
            {{- end }}
            {{- if $values.apiToken }}
            - {name: api-token, mountPath: /etc/chaperone/api-token, readOnly: true}
            {{- end }}
            - {name: workspace, mountPath: /workspace}
            - {name: home, mountPath: /home/codex}
            - {name: tmp, mountPath: /tmp}
            {{- .mounts | nindent 12 }}
      volumes:
        {{- include "chaperone.supervisorVolume" .root | nindent 8 }}
        - name: gateway-token
          secret: {secretName: {{ $values.existingSecret }}, defaultMode: 0440, items: [{key: gateway-token, path: token}]}
        {{- if $values.apiToken }}
        - name: api-token
          secret: {secretName: {{ $values.existingSecret }}, defaultMode: 0440, items: [{key: api-token, path: token}]}
        {{- end }}
        {{- if .root.Values.gateway.tls.existingSecret }}
        - name: ca
          configMap: {name: {{ required "gateway.tls.caConfigMap must name a ConfigMap with ca.crt, because gateway.tls.existingSecret is set" .root.Values.gateway.tls.caConfigMap }}}
        {{- end }}
        - {name: workspace, emptyDir: {sizeLimit: {{ $values.workspace.size }}}}
        - {name: home, emptyDir: {sizeLimit: 1Gi}}
        - {name: tmp, emptyDir: {sizeLimit: 1Gi}}
        {{- .volumes | nindent 8 }}
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

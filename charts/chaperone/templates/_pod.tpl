{{- /*
The Pod whose container the supervisor runs: the shared sandbox's, the static agent's, and the one that the gateway makes sandboxes
from (`made`: it puts in who each of them is). One definition, so that what is checked of one holds for all; `helm test` runs the
supervisor's preflight in it (`tries`).
Takes {root, component, key, name, values, mounts, volumes, init, env, made, tries}; mounts, volumes, init and env are YAML lists as text.
*/ -}}
{{- define "chaperone.podSpec" -}}
{{- $values := .values }}
{{- $image := include "chaperone.image" (dict "name" (printf "%s.image" .key) "image" $values.image) }}
{{- $legacy := and .root.Values.legacyInternalSecret (not .made) }}
{{- if and $legacy $values.apiToken }}
{{- fail (printf "legacyInternalSecret and %s.apiToken open one API to two tokens: choose one of them" .key) }}
{{- end }}
{{- $apiKey := ternary "gateway-internal-secret" (ternary "api-token" "" $values.apiToken) $legacy }}
{{- if or .made .tries }}
restartPolicy: Never
{{- end }}
serviceAccountName: {{ .name }}
{{- include "chaperone.placement" . | nindent 0 }}
securityContext: {{ include "chaperone.podSecurity" $values.user | nindent 2 }}
terminationGracePeriodSeconds: {{ add $values.grace 5 }}
{{- $init := printf "%s\n%s" (include "chaperone.install" .) (.init | default "") | trim }}
{{- with $init }}
initContainers:
  {{- . | nindent 2 }}
{{- end }}
containers:
  - name: {{ .component }}
    image: {{ $image | quote }}
    imagePullPolicy: {{ $values.image.pullPolicy }}
    command: [/chaperone/supervisor, {{ ternary "preflight" "run" (.tries | default false) }}]
    {{- if and $values.argv (not .tries) }}
    args: {{ prepend $values.argv "--" | toYaml | nindent 6 }}
    {{- end }}
    env:
      - {name: SUPERVISOR_LISTEN, value: "[::]:{{ $values.port }}"}
      - {name: SUPERVISOR_GRACE, value: {{ $values.grace }}s}
      {{- if not .made }}
      - {name: SUPERVISOR_AGENT_ID, value: {{ $values.agentId | quote }}}
      - {name: SUPERVISOR_CONTROLLER_ID, value: {{ printf "helm/%s" .root.Release.Name | quote }}}
      {{- end }}
      - {name: SUPERVISOR_GATEWAY_URL, value: {{ include "chaperone.gatewayUrl" .root | quote }}}
      - {name: SUPERVISOR_LINK_TOKEN_FILE, value: /etc/chaperone/gateway-token/token}
      {{- if .root.Values.gateway.tls.existingSecret }}
      - {name: SUPERVISOR_LINK_CA_FILE, value: /etc/chaperone/ca/ca.crt}
      {{- else }}
      - {name: SUPERVISOR_LINK_PLAIN, value: "true"}
      {{- end }}
      {{- if $legacy }}
      - name: HIVE_INTERNAL_SECRET
        valueFrom: {secretKeyRef: {name: {{ $values.existingSecret }}, key: {{ $apiKey }}}}
      {{- end }}
      {{- if $apiKey }}
      - {name: SUPERVISOR_API_TOKEN_FILE, value: /etc/chaperone/api-token/token}
      {{- end }}
      {{- if $values.apiSigned }}
      - {name: SUPERVISOR_API_SIGNED, value: "true"}
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
      {{- . | trim | nindent 6 }}
      {{- end }}
      {{- range $name, $value := $values.settings }}
      - {name: {{ $name }}, value: {{ $value | quote }}}
      {{- end }}
    ports: [{name: http, containerPort: {{ $values.port }}}]
    {{- if not .tries }}
    {{- /* A kubelet looks once a second: a sandbox on request is ready 1.4 s earlier without it, and liveness has its patience. */}}
    {{- if not .made }}
    startupProbe: {httpGet: {path: /startupz, port: http}, periodSeconds: 1, failureThreshold: {{ $values.startupSeconds }}, timeoutSeconds: 2}
    {{- end }}
    livenessProbe: {httpGet: {path: /livez, port: http}, periodSeconds: 15, failureThreshold: 4, timeoutSeconds: 3}
    readinessProbe: {httpGet: {path: /readyz, port: http}, periodSeconds: 5, timeoutSeconds: 2}
    {{- end }}
    terminationMessagePolicy: FallbackToLogsOnError
    securityContext: {{ include "chaperone.containerSecurity" . | nindent 6 }}
    resources: {{ toYaml $values.resources | nindent 6 }}
    volumeMounts:
      - {name: chaperone, mountPath: /chaperone, readOnly: true}
      - {name: gateway-token, mountPath: /etc/chaperone/gateway-token, readOnly: true}
      {{- if .root.Values.gateway.tls.existingSecret }}
      - {name: ca, mountPath: /etc/chaperone/ca, readOnly: true}
      {{- end }}
      {{- if $apiKey }}
      - {name: api-token, mountPath: /etc/chaperone/api-token, readOnly: true}
      {{- end }}
      - {name: workspace, mountPath: /workspace}
      - {name: home, mountPath: /home/codex}
      - {name: tmp, mountPath: /tmp}
      {{- .mounts | trim | nindent 6 }}
volumes:
  {{- include "chaperone.supervisorVolume" . | nindent 2 }}
  # 288 is 0440, which is another number in YAML 1.2.
  - name: gateway-token
    {{- if or .made .root.Values.identity.enabled }}
    projected: {defaultMode: 288, sources: [{serviceAccountToken: {audience: {{ .root.Values.identity.audience }}, expirationSeconds: 3600, path: token}}]}
    {{- else }}
    secret: {secretName: {{ $values.existingSecret }}, defaultMode: 288, items: [{key: gateway-token, path: token}]}
    {{- end }}
  {{- if $apiKey }}
  - name: api-token
    secret: {secretName: {{ $values.existingSecret }}, defaultMode: 288, items: [{key: {{ $apiKey }}, path: token}]}
  {{- end }}
  {{- if .root.Values.gateway.tls.existingSecret }}
  - name: ca
    configMap: {name: {{ required "gateway.tls.caConfigMap must name a ConfigMap with ca.crt, because gateway.tls.existingSecret is set" .root.Values.gateway.tls.caConfigMap }}}
  {{- end }}
  - {name: workspace, emptyDir: {sizeLimit: {{ $values.workspace.size }}}}
  - {name: home, emptyDir: {sizeLimit: 1Gi}}
  - {name: tmp, emptyDir: {sizeLimit: 1Gi}}
  {{- .volumes | trim | nindent 2 }}
{{- end -}}

{{- /* what `chaperone.podSpec` takes for a sandbox, shared or made on request, as YAML; takes its values */ -}}
{{- define "chaperone.sandboxParts" -}}
component: sandbox
mounts: |
  # The state directory: journal, logs and artifacts of dev-tasks (000-60, 000-61); no agent can write there.
  - {name: tasks, mountPath: /sandbox/tasks}
  - {name: commands, mountPath: /sandbox/commands}
volumes: |
  - {name: tasks, emptyDir: {sizeLimit: 2Gi}}
  - {name: commands, emptyDir: {sizeLimit: 256Mi}}
env: |
  - {name: SUPERVISOR_STATE_DIR, value: /sandbox/tasks}
  - {name: SUPERVISOR_AGENT_WRITE, value: /sandbox/commands}
  {{- /* 000-57: each of them may be missing. */}}
  {{- range list "model" "provider-id" "provider-name" "base-url" "wire-api" "env-key" "requires-openai-auth" }}
  - name: HIVE_SANDBOX_CODEX_{{ upper . | replace "-" "_" }}
    valueFrom: {secretKeyRef: {name: {{ $.existingSecret }}, key: codex-{{ . }}, optional: true}}
  {{- end }}
{{- end -}}

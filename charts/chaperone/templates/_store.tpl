{{- /* The store of the gateway: an SQLite file on a volume of its own, or the operator's PostgreSQL (000-84). */ -}}
{{- define "chaperone.onPostgres" -}}
{{- if eq .Values.gateway.store.kind "postgres" }}yes{{ end -}}
{{- end -}}

{{- /* Whether several gateways work with it, or may. They share a server; a file is one gateway's at a time. */ -}}
{{- define "chaperone.several" -}}
{{- $gateway := .Values.gateway }}
{{- if or (gt (int $gateway.replicas) 1) $gateway.autoscaling.enabled }}
{{- if not (include "chaperone.onPostgres" .) }}
{{- fail "gateway.replicas above 1 and gateway.autoscaling need gateway.store.kind postgres: an SQLite file is one gateway's at a time" }}
{{- end }}yes
{{- end -}}
{{- end -}}

{{- /* how the others reach one of several, by the certificate that all of them have */ -}}
{{- define "chaperone.advertiseEnv" -}}
{{- $gateway := .Values.gateway -}}
- {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
- {name: GATEWAY_ADVERTISE_URL, value: "{{ ternary "https" "http" (ne $gateway.tls.existingSecret "") }}://$(POD_IP):{{ $gateway.port }}"}
{{- if $gateway.tls.existingSecret }}
- {name: GATEWAY_ADVERTISE_NAME, value: {{ include "chaperone.gatewayHost" . }}}
- {name: GATEWAY_ADVERTISE_CA_FILE, value: /etc/gateway/ca/ca.crt}
{{- end }}
{{- end -}}

{{- /* the one variable that `migrate up` reads (000-85) */ -}}
{{- define "chaperone.storeEnv" -}}
{{- if include "chaperone.onPostgres" . -}}
- name: DATABASE_URL
  valueFrom: {secretKeyRef: {name: {{ .Values.gateway.existingSecret }}, key: {{ .Values.gateway.store.secretKey }}}}
{{- else -}}
- {name: DATABASE_URL, value: "sqlite:/var/lib/gateway/gateway.db"}
{{- end }}
{{- end -}}

{{- define "chaperone.storeMounts" -}}
{{- if not (include "chaperone.onPostgres" .) }}
- {name: store, mountPath: /var/lib/gateway}
{{- else if .Values.gateway.store.caConfigMap }}
- {name: database-ca, mountPath: /etc/gateway/database, readOnly: true}
{{- end }}
{{- end -}}

{{- define "chaperone.storeVolumes" -}}
{{- $store := .Values.gateway.store }}
{{- if not (include "chaperone.onPostgres" .) }}
- name: store
  {{- if $store.persistent }}
  persistentVolumeClaim: {claimName: {{ include "chaperone.gateway" . }}-store}
  {{- else }}
  emptyDir: {sizeLimit: {{ $store.size }}}
  {{- end }}
{{- else if $store.caConfigMap }}
- name: database-ca
  configMap: {name: {{ $store.caConfigMap }}}
{{- end }}
{{- end -}}

{{- /* the container that makes the schema, in a Job or before the gateway; it gets nothing but the store */ -}}
{{- define "chaperone.migrate" -}}
- name: migrate
  image: {{ include "chaperone.image" (dict "name" "gateway.image" "image" .Values.gateway.image) | quote }}
  imagePullPolicy: {{ .Values.gateway.image.pullPolicy }}
  args: [migrate, up]
  env:
    {{- include "chaperone.storeEnv" . | nindent 4 }}
  terminationMessagePolicy: FallbackToLogsOnError
  securityContext: {{ include "chaperone.containerSecurity" . | nindent 4 }}
  resources: {{ toYaml .Values.gateway.resources | nindent 4 }}
  {{- with include "chaperone.storeMounts" . | trim }}
  volumeMounts:
    {{- . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- /* The store of the gateway: an SQLite file on a volume of its own, or the operator's PostgreSQL (000-84). */ -}}
{{- define "chaperone.onPostgres" -}}
{{- if eq .Values.gateway.store.kind "postgres" }}yes{{ end -}}
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

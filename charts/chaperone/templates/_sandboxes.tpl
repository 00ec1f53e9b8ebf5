{{- /* The Pod that sandboxes are made from; the gateway adds name, owner and identity, and puts a request's wishes in. */ -}}
{{- define "chaperone.sandboxPod" -}}
{{- $values := .Values.sandboxes -}}
apiVersion: v1
kind: Pod
metadata:
  labels: {{ include "chaperone.labels" (dict "root" . "component" "sandboxes") | nindent 4 }}
  annotations:
    kubectl.kubernetes.io/default-container: sandbox
    {{- with $values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- $parts := include "chaperone.sandboxParts" $values | fromYaml }}
  {{- include "chaperone.podSpec" (merge (dict "root" . "key" "sandboxes" "name" "hive-sandboxes" "values" $values "made" true) $parts) | trim | nindent 2 }}
{{- end -}}

{{- /* the gateway's settings for it */ -}}
{{- define "chaperone.sandboxesEnv" -}}
- {name: GATEWAY_BACKEND, value: kubernetes}
- {name: GATEWAY_KUBERNETES_NAMESPACE, value: {{ .Values.namespaces.sandbox }}}
# Never another one for the same installation: it is how the gateway knows its own objects.
- {name: GATEWAY_KUBERNETES_CONTROLLER_ID, value: {{ printf "%s/%s" .Release.Namespace .Release.Name | quote }}}
- {name: GATEWAY_KUBERNETES_TEMPLATE, value: /etc/gateway/template/sandbox-pod.yaml}
{{- if eq .Values.supervisor.delivery "auto" }}
- {name: GATEWAY_KUBERNETES_DELIVERY, value: auto}
{{- end }}
{{- end -}}

{{- define "chaperone.templateMount" -}}
- {name: template, mountPath: /etc/gateway/template, readOnly: true}
{{- end -}}
{{- define "chaperone.templateVolume" -}}
- {name: template, configMap: {name: hive-sandboxes}}
{{- end -}}

{{- /* Names are fixed within a namespace: policies, DNS names and documentation speak of them. */ -}}
{{- define "chaperone.gateway" -}}hive-gateway{{- end -}}
{{- define "chaperone.gatewayHost" -}}{{ include "chaperone.gateway" . }}.{{ .Release.Namespace }}.svc.cluster.local{{- end -}}

{{- /* labels of an object; takes {root, component} */ -}}
{{- define "chaperone.labels" -}}
{{ include "chaperone.selector" . }}
app.kubernetes.io/part-of: chaperone
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "chaperone.selector" -}}
app.kubernetes.io/name: chaperone
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- /* an image's reference; takes {name, image}. What runs must be chosen by a person, so there is no default tag. */ -}}
{{- define "chaperone.image" -}}
{{- $at := ternary (printf ":%s" .image.tag) "" (ne .image.tag "") -}}
{{- $digest := ternary (printf "@%s" .image.digest) "" (ne .image.digest "") -}}
{{- if not (or $at $digest) -}}
{{- fail (printf "%s.tag or %s.digest must be set: say which image runs" .name .name) -}}
{{- end -}}
{{- if eq .image.tag "latest" -}}
{{- fail (printf "%s.tag is `latest`, which changes under a running installation: name a version or a digest" .name) -}}
{{- end -}}
{{ .image.repository }}{{ $at }}{{ $digest }}
{{- end -}}

{{- /* Pod Security `restricted`; takes a uid */ -}}
{{- define "chaperone.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "chaperone.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* what every Pod has; takes {root, values, callsApi}: the last is true for who has a role in the cluster */ -}}
{{- define "chaperone.placement" -}}
enableServiceLinks: false
automountServiceAccountToken: {{ .callsApi | default false }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.topologySpreadConstraints }}
topologySpreadConstraints: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* How the supervisor comes into this Pod. With `auto` the gateway tries image volumes for what it makes; nobody can try it for
the others before the install, so they have what works everywhere. */ -}}
{{- define "chaperone.delivery" -}}
{{- $wanted := .root.Values.supervisor.delivery -}}
{{- if eq $wanted "auto" }}{{ ternary "image-volume" "install" (default false .made) }}{{ else }}{{ $wanted }}{{ end -}}
{{- end -}}

{{- /* the volume that the supervisor is in */ -}}
{{- define "chaperone.supervisorVolume" -}}
{{- $supervisor := .root.Values.supervisor -}}
{{- $image := include "chaperone.image" (dict "name" "supervisor.image" "image" $supervisor.image) -}}
- name: chaperone
{{- if eq (include "chaperone.delivery" .) "image-volume" }}
  image: {reference: {{ $image | quote }}, pullPolicy: {{ $supervisor.image.pullPolicy }}}
{{- else }}
  emptyDir: {sizeLimit: 64Mi}
{{- end }}
{{- end -}}

{{- /* the init container that copies the supervisor where it is not mounted */ -}}
{{- define "chaperone.install" -}}
{{- $supervisor := .root.Values.supervisor -}}
{{- if eq (include "chaperone.delivery" .) "install" }}
- name: install
  image: {{ include "chaperone.image" (dict "name" "supervisor.image" "image" $supervisor.image) | quote }}
  imagePullPolicy: {{ $supervisor.image.pullPolicy }}
  command: [/supervisor, install, /chaperone]
  securityContext: {{ include "chaperone.containerSecurity" .root | nindent 4 }}
  resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {memory: 64Mi}}
  volumeMounts:
    - {name: chaperone, mountPath: /chaperone}
{{- end }}
{{- end -}}

{{- /* where supervisors dial */ -}}
{{- define "chaperone.gatewayUrl" -}}
{{ ternary "wss" "ws" (ne .Values.gateway.tls.existingSecret "") }}://{{ include "chaperone.gatewayHost" . }}:{{ .Values.gateway.port }}
{{- end -}}

{{- /* whether the gateway speaks to the API server */ -}}
{{- define "chaperone.callsApi" -}}
{{- if or .Values.sandboxes.enabled .Values.identity.enabled }}yes{{ end -}}
{{- end -}}

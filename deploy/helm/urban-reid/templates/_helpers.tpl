{{- define "urban-reid.labels" -}}
app.kubernetes.io/name: urban-reid
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* Labels that choose the pods of a part: (list $ "city"). */}}
{{- define "urban-reid.selector" -}}
app.kubernetes.io/name: urban-reid
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "urban-reid.name" -}}
{{- printf "%s-%s" (index . 0).Release.Name (index . 1) | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The image of a part: (list $ gpus). */}}
{{- define "urban-reid.image" -}}
{{- $image := (index . 0).Values.image }}
{{- $built := ternary "cuda" "cpu" (gt (int (index . 1)) 0) }}
{{- printf "%s:%s" $image.repository ($image.tag | default (printf "%s-%s" (index . 0).Chart.AppVersion $built)) }}
{{- end }}

{{- define "urban-reid.pod-security" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "urban-reid.container-security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Variables of every container that runs the program. */}}
{{- define "urban-reid.settings" -}}
- {name: URBAN_REID_HOME, value: /var/lib/urban-reid/home}
- {name: URBAN_REID_KEY_FILE, value: /var/lib/urban-reid-key/key-file}
- {name: URBAN_REID_PREFECT_URL, value: "http://{{ include "urban-reid.name" (list . "prefect") }}:4200/api"}
{{- range $name, $value := .Values.settings }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "urban-reid.mounts" -}}
- {name: home, mountPath: /var/lib/urban-reid}
- {name: key, mountPath: /var/lib/urban-reid-key, readOnly: true}
- {name: secrets, mountPath: /run/secrets, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- if .Values.caConfigMap }}
- {name: ca, mountPath: /etc/urban-reid/ca, readOnly: true}
{{- end }}
{{- end }}

{{/* All volumes of a pod that runs the program, but `home`. */}}
{{- define "urban-reid.volumes" -}}
- name: key
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
- name: key-secret
  secret: {secretName: {{ .Values.secrets.key }}}
- name: secrets
  secret: {secretName: {{ .Values.secrets.program }}, defaultMode: 0440}
- name: tmp
  emptyDir: {}
{{- if .Values.caConfigMap }}
- name: ca
  configMap: {name: {{ .Values.caConfigMap }}}
{{- end }}
{{- end }}

{{/*
Makes the data directory, closed to others, and a copy of the key file that nobody else can read, which the program
insists on: Kubernetes mounts secrets readable by the pod's group.
*/}}
{{- define "urban-reid.prepare" -}}
- name: prepare
  image: {{ include "urban-reid.image" (list . 0) }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command:
    - sh
    - -euc
    - |
      install -m 0600 /run/key/key-file /var/lib/urban-reid-key/key-file
      install -d -m 0700 /var/lib/urban-reid/home
  securityContext: {{- include "urban-reid.container-security" . | nindent 4 }}
  resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {memory: 64Mi}}
  volumeMounts:
    - {name: home, mountPath: /var/lib/urban-reid}
    - {name: key, mountPath: /var/lib/urban-reid-key}
    - {name: key-secret, mountPath: /run/key, readOnly: true}
{{- end }}

{{/* Resources with GPUs: (list resources gpus). */}}
{{- define "urban-reid.resources" -}}
{{- $resources := deepCopy (index . 0) }}
{{- if gt (int (index . 1)) 0 }}
{{- $_ := set $resources "limits" (merge (dict "nvidia.com/gpu" (int (index . 1))) ($resources.limits | default dict)) }}
{{- end }}
{{- toYaml $resources }}
{{- end }}

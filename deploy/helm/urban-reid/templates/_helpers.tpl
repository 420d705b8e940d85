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
- name: SECRETS_NEEDED
  value: URBAN_REID_DATABASE_URL PREFECT_API_AUTH_STRING{{ if .Values.core.enabled }} URBAN_REID_CORE_TOKEN{{ end }}
- {name: URBAN_REID_HOME, value: /var/lib/urban-reid/home}
- {name: URBAN_REID_KEY_FILE, value: /var/lib/urban-reid-key/key-file}
{{- if .Values.core.enabled }}
- {name: URBAN_REID_CORE_URL, value: "http://{{ include "urban-reid.name" (list . "core") }}:8440"}
{{- end }}
{{- if .Values.workers }}
- {name: URBAN_REID_FLOWS, value: workers}
{{- end }}
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
{{- if .Values.modelsClaim }}
- {name: models, mountPath: /var/lib/urban-reid-models}
{{- end }}
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
{{- if .Values.modelsClaim }}
- name: models
  persistentVolumeClaim: {claimName: {{ .Values.modelsClaim }}}
{{- end }}
{{- if .Values.caConfigMap }}
- name: ca
  configMap: {name: {{ .Values.caConfigMap }}}
{{- end }}
{{- end }}

{{/* Shell: the folders of models that all pods share, in the data directory. */}}
{{- define "urban-reid.link-models" -}}
for folder in models detectors attributes; do
    mkdir -p "/var/lib/urban-reid-models/$folder"
    ln -sfnT "/var/lib/urban-reid-models/$folder" "/var/lib/urban-reid/home/$folder"
done
{{- end }}

{{/*
Makes the data directory, closed to others, with the shared folders of models in it; and a copy of the key
file that nobody else can read, which the program insists on: Kubernetes mounts secrets readable by the pod's group.
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
      {{- if .Values.modelsClaim }}
      {{- include "urban-reid.link-models" . | nindent 6 }}
      {{- end }}
  securityContext: {{- include "urban-reid.container-security" . | nindent 4 }}
  resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {memory: 64Mi}}
  volumeMounts:
    - {name: home, mountPath: /var/lib/urban-reid}
    - {name: key, mountPath: /var/lib/urban-reid-key}
    - {name: key-secret, mountPath: /run/key, readOnly: true}
    {{- if .Values.modelsClaim }}
    - {name: models, mountPath: /var/lib/urban-reid-models}
    {{- end }}
{{- end }}

{{/* Resources with GPUs: (list resources gpus). */}}
{{- define "urban-reid.resources" -}}
{{- $resources := deepCopy (index . 0) }}
{{- if gt (int (index . 1)) 0 }}
{{- $_ := set $resources "limits" (merge (dict "nvidia.com/gpu" (int (index . 1))) ($resources.limits | default dict)) }}
{{- end }}
{{- toYaml $resources }}
{{- end }}

{{/*
Scales a Deployment by its use of the processor, unless it has as many pods at most as at least; and keeps all but one of
them: (list $ part replicas).
*/}}
{{- define "urban-reid.scaling" -}}
{{- $root := index . 0 }}
{{- $part := index . 1 }}
{{- $replicas := index . 2 }}
{{- if lt (int $replicas.min) (int $replicas.max) }}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ include "urban-reid.name" (list $root $part) }}
  labels: {{- include "urban-reid.labels" $root | nindent 4 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ include "urban-reid.name" (list $root $part) }}}
  minReplicas: {{ $replicas.min }}
  maxReplicas: {{ $replicas.max }}
  metrics:
    - type: Resource
      resource: {name: cpu, target: {type: Utilization, averageUtilization: {{ $replicas.targetCpuPercent }}}}
  behavior:
    scaleDown: {stabilizationWindowSeconds: 900}
---
{{- end }}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "urban-reid.name" (list $root $part) }}
  labels: {{- include "urban-reid.labels" $root | nindent 4 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels: {{- include "urban-reid.selector" (list $root $part) | nindent 6 }}
{{- end }}

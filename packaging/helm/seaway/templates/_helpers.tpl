{{- define "seaway.labels" -}}
app.kubernetes.io/name: seaway
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "seaway.selector" -}}
app.kubernetes.io/name: seaway
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* What both roles are told by their environment: where the bucket is, who they are, and all settings. */}}
{{- define "seaway.env" -}}
- name: SEAWAY_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: SEAWAY_BUCKET
  value: {{ required "bucket: name the bucket, as s3://BUCKET/PREFIX?region=REGION" .Values.bucket | quote }}
- name: SEAWAY_HTTP
  value: "0.0.0.0:{{ .Values.httpPort }}"
{{- if .Values.tlsSecret }}
- name: SEAWAY_TLS_DIR
  value: /etc/seaway/certs
{{- else if .Values.plaintextLinks }}
- name: SEAWAY_PLAINTEXT_LINKS
  value: "true"
{{- else }}
{{- fail "tlsSecret: name a secret with the certificates of the pods (docs/security.md), or set plaintextLinks: true" }}
{{- end }}
{{- range $name, $value := .Values.settings }}
- name: SEAWAY_{{ $name | upper | replace "." "_" | replace "-" "_" }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end }}

{{/* The rest of a container of either role. */}}
{{- define "seaway.container" -}}
image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- with .Values.bucketSecret }}
envFrom:
  - secretRef: {name: {{ . }}}
{{- end }}
# Alive is a process that answers at all: one that waits for its bucket must not be killed for it.
livenessProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 10
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 2
  failureThreshold: 2
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
{{- if .Values.tlsSecret }}
  - {name: certs, mountPath: /etc/seaway/certs, readOnly: true}
{{- end }}
{{- end }}

{{/* The rest of a pod of either role. */}}
{{- define "seaway.pod" -}}
serviceAccountName: {{ .Release.Name }}
# Variables of services would be taken for settings.
enableServiceLinks: false
terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
volumes:
  - name: tmp
    emptyDir: {}
{{- if .Values.tlsSecret }}
  - name: certs
    secret: {secretName: {{ .Values.tlsSecret }}, defaultMode: 0440}
{{- end }}
{{- end }}

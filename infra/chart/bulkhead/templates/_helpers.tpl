{{/* Labels by which the pods of a workload are found. In: its name. */}}
{{- define "bulkhead.selector" -}}
app.kubernetes.io/name: {{ . }}
app.kubernetes.io/part-of: bulkhead
{{- end }}

{{/* Labels of an object. In: name, component. */}}
{{- define "bulkhead.labels" -}}
{{ include "bulkhead.selector" .name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels of an object that belongs to no workload. */}}
{{- define "bulkhead.sharedLabels" -}}
app.kubernetes.io/part-of: bulkhead
app.kubernetes.io/component: infrastructure
{{- end }}

{{/* The account of a workload, without a token of the API server, and its disruption budget. In: root, name, component. */}}
{{- define "bulkhead.account" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ .name }}
  labels: {{- include "bulkhead.labels" . | nindent 4 }}
automountServiceAccountToken: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* Machines are emptied one pod at a time; one that is not ready anyway keeps none from it. In: name, component. */}}
{{- define "bulkhead.disruptionBudget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ .name }}
  labels: {{- include "bulkhead.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- include "bulkhead.selector" .name | nindent 6 }}
{{- end }}

{{/* What the pods of all workloads have. In: root, name, critical, grace. */}}
{{- define "bulkhead.pod" -}}
serviceAccountName: {{ .name }}
automountServiceAccountToken: false
enableServiceLinks: false
priorityClassName: {{ .root.Release.Namespace }}-{{ ternary "critical" "standard" (default false .critical) }}
terminationGracePeriodSeconds: {{ .grace }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Replicas lie on several machines and in several zones. In: a workload's name. */}}
{{- define "bulkhead.spread" -}}
topologySpreadConstraints:
{{- $name := . }}
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- maxSkew: 1
  topologyKey: {{ . }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels: {{- include "bulkhead.selector" $name | nindent 6 }}
{{- end }}
{{- end }}

{{/* What all containers have: nobody is root, nothing is writable but what is mounted. In: root, image, cpu, memory. */}}
{{- define "bulkhead.container" -}}
image: {{ include "bulkhead.image" . }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
resources:
  requests: {cpu: {{ .cpu }}, memory: {{ .memory }}}
  limits: {cpu: "1", memory: {{ .memory }}}
securityContext:
  allowPrivilegeEscalation: false
  capabilities: {drop: [ALL]}
  privileged: false
  readOnlyRootFilesystem: true
# A process that ends with an error leaves its last lines in the pod's status.
terminationMessagePolicy: FallbackToLogsOnError
{{- end }}

{{- define "bulkhead.image" -}}
{{- $image := .root.Values.image -}}
{{- $digest := get $image.digests .image -}}
{{- if $digest -}}
{{ $image.registry }}/{{ .image }}@{{ $digest }}
{{- else -}}
{{ $image.registry }}/{{ .image }}:{{ required (printf "image %s has no digest: add the file of promoted images (-f infra/chart/images/NAME.yaml), or set image.tag for a trial" .image) $image.tag }}
{{- end -}}
{{- end }}

{{/* The owner's Secret and the certificate of the brokers' CA. In: owner. */}}
{{- define "bulkhead.identitySources" -}}
- secret: {name: bulkhead-{{ . }}}
- secret:
    name: bulkhead-nats-tls
    items: [{key: ca.crt, path: ca.pem}]
{{- end }}

{{- define "bulkhead.tmpVolume" -}}
- name: tmp
  emptyDir: {medium: Memory, sizeLimit: 64Mi}
{{- end }}

{{/* A Service under whose name the pods of a StatefulSet have theirs, from the moment at which they run: they find each
     other before they are ready. In: name, ports. */}}
{{- define "bulkhead.headlessService" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ .name }}
  labels: {{- include "bulkhead.labels" (dict "name" .name "component" "infrastructure") | nindent 4 }}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector: {{- include "bulkhead.selector" .name | nindent 4 }}
  ports:
  {{- range $name, $port := .ports }}
  - {name: {{ $name }}, port: {{ $port }}}
  {{- end }}
{{- end }}

{{/* Names of the services that reach a place, as JSON. In: root, place. */}}
{{- define "bulkhead.reaching" -}}
{{- $names := list -}}
{{- $place := .place -}}
{{- range $name, $service := .root.Values.services -}}
{{- if has $place (default list $service.reaches) -}}{{- $names = append $names $name -}}{{- end -}}
{{- end -}}
{{ toJson $names }}
{{- end }}

{{- define "bulkhead.natsUrl" -}}
{{- if .Values.nats.inCluster -}}
{{- range $number := until (int .Values.nats.replicas) -}}
{{ if $number }},{{ end }}tls://nats-{{ $number }}.nats:4222
{{- end -}}
{{- else -}}
{{ required "nats.external.url is missing: where is your broker?" .Values.nats.external.url }}
{{- end -}}
{{- end }}

{{/* Content of each ConfigMap. Pods name its hash, so that another content makes new pods. In: root. */}}
{{- define "bulkhead.data.settings" -}}
BULKHEAD_NATS_URL: {{ include "bulkhead.natsUrl" . }}
BULKHEAD_NATS_CA_FILE: /bulkhead/identity/ca.pem
BULKHEAD_HEALTH_HOST: 0.0.0.0 # Probes come from the machine.
{{ toYaml .Values.settings }}
{{- end }}

{{- define "bulkhead.data.streams" -}}
BULKHEAD_REPLICAS: {{ .Values.nats.replicas | quote }}
BULKHEAD_STORE_GIB: {{ sub .Values.nats.diskGib 5 | quote }}
BULKHEAD_RANKED: "true"
BULKHEAD_RETENTION: {{ .Values.retention }}
{{- with .Values.identities }}
BULKHEAD_IDENTITIES_YAML: {{ toJson . }}
{{- end }}
{{- range $name, $service := .Values.services }}
{{- if eq $service.component "decider" }}
BULKHEAD_SHARDS_{{ $name | upper | replace "-" "_" }}: {{ $service.env.BULKHEAD_SHARDS | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- define "bulkhead.data.cluster" -}}
BULKHEAD_TOKEN_ISSUER: {{ .Values.cluster.tokenIssuer }}
BULKHEAD_TOKEN_NAMESPACE: {{ .Release.Namespace }}
BULKHEAD_KEY_SET_URL: {{ .Values.cluster.keySetUrl }}
{{- end }}

{{- define "bulkhead.data.tenants" -}}
tenants.yaml: {{ default (.Files.Get "files/tenants.yaml") .Values.tenants | toJson }}
{{- end }}

{{- define "bulkhead.data.permissions" -}}
permissions.json: {{ .Files.Get "files/permissions.json" | toJson }}
{{- end }}

{{- define "bulkhead.data.policy" -}}
{{- if .Values.policies -}}
{{ toYaml .Values.policies }}
{{- else -}}
{{ (.Files.Glob "files/policy/*").AsConfig }}
{{- end }}
{{- end }}

{{- define "bulkhead.data.broker" -}}
nats-server.conf: {{ .Files.Get (printf "files/%s/nats-server.conf" (ternary "one-broker" "three-brokers" (eq (int .Values.nats.replicas) 1))) | toJson }}
accounts.conf: {{ default (.Files.Get "files/accounts.conf") .Values.accounts | toJson }}
{{- end }}

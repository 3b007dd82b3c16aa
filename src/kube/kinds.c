/* The table of resources. The order of versions within a group matters: the first that names a bucket is stored and preferred. */
#include "kube/kinds.h"

#include "base/mem.h"
#include "pb/pb.h"

#include <stdio.h>

#define CORE "k8s.io.api.core.v1."
#define EXT  "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1."
#define NET  "istio.networking.v1alpha3."

#define EVENT_FIELDS                                                                                                     \
        "involvedObject.kind involvedObject.namespace involvedObject.name involvedObject.uid involvedObject.apiVersion " \
        "involvedObject.resourceVersion involvedObject.fieldPath reason reportingComponent source type"
#define POD_FIELDS                                                                                                                \
        "spec.nodeName spec.restartPolicy spec.schedulerName spec.serviceAccountName spec.hostNetwork status.phase status.podIP " \
        "status.nominatedNodeName"
#define IC  "istio-io"
#define ICN "istio-io networking-istio-io"

#define BUILTIN(group, version, plural, singular, kind, short_, cat, ns, type, verbs, subs, fields, bucket)                              \
        {                                                                                                                                \
                group, version, plural, singular, kind, short_, cat, ns, KUBE_BUILTIN, type, verbs, subs, fields, bucket, 0, false, NULL \
        }
#define CUSTOM(group, version, plural, singular, kind, short_, cat, type)                                                    \
        {                                                                                                                    \
                group, version, plural, singular, kind, short_, cat, true, KUBE_CUSTOM, type, KUBE_ALL, KUBE_SUB_STATUS, "", \
                        plural "." group, 0, false, NULL                                                                     \
        }
#define NETWORKING(version, plural, singular, kind, short_, type) \
        CUSTOM("networking.istio.io", version, plural, singular, kind, short_, ICN, type)
#define SECURITY(version, plural, singular, kind, short_, type) \
        CUSTOM("security.istio.io", version, plural, singular, kind, short_, "istio-io security-istio-io", type)

struct kube_resource kube_resources[] = {
        BUILTIN("", "v1", "namespaces", "namespace", "Namespace", "ns", "", false, CORE "Namespace", KUBE_ALL & ~KUBE_DELETE_COLLECTION,
                KUBE_SUB_STATUS | KUBE_SUB_FINALIZE, "status.phase", "namespaces"),
        BUILTIN("", "v1", "nodes", "node", "Node", "no", "", false, CORE "Node", KUBE_ALL, KUBE_SUB_STATUS, "spec.unschedulable", "nodes"),
        BUILTIN("", "v1", "pods", "pod", "Pod", "po", "all", true, CORE "Pod", KUBE_ALL, KUBE_SUB_STATUS | KUBE_SUB_POD, POD_FIELDS,
                "pods"),
        BUILTIN("", "v1", "services", "service", "Service", "svc", "all", true, CORE "Service", KUBE_ALL, KUBE_SUB_STATUS,
                "spec.clusterIP spec.type", "services"),
        BUILTIN("", "v1", "endpoints", "endpoints", "Endpoints", "ep", "", true, CORE "Endpoints", KUBE_ALL, 0, "", "endpoints"),
        BUILTIN("", "v1", "serviceaccounts", "serviceaccount", "ServiceAccount", "sa", "", true, CORE "ServiceAccount", KUBE_ALL,
                KUBE_SUB_TOKEN, "", "serviceaccounts"),
        BUILTIN("", "v1", "configmaps", "configmap", "ConfigMap", "cm", "", true, CORE "ConfigMap", KUBE_ALL, 0, "", "configmaps"),
        BUILTIN("", "v1", "secrets", "secret", "Secret", "", "", true, CORE "Secret", KUBE_ALL, 0, "type", "secrets"),
        BUILTIN("", "v1", "events", "event", "Event", "ev", "", true, CORE "Event", KUBE_ALL, 0, EVENT_FIELDS, "events"),
        BUILTIN("apps", "v1", "deployments", "deployment", "Deployment", "deploy", "all", true, "k8s.io.api.apps.v1.Deployment", KUBE_ALL,
                KUBE_SUB_STATUS | KUBE_SUB_SCALE, "", "deployments.apps"),
        BUILTIN("apps", "v1", "replicasets", "replicaset", "ReplicaSet", "rs", "all", true, "k8s.io.api.apps.v1.ReplicaSet", KUBE_ALL,
                KUBE_SUB_STATUS | KUBE_SUB_SCALE, "status.replicas", "replicasets.apps"),
        BUILTIN("discovery.k8s.io", "v1", "endpointslices", "endpointslice", "EndpointSlice", "", "", true,
                "k8s.io.api.discovery.v1.EndpointSlice", KUBE_ALL, 0, "", "endpointslices.discovery.k8s.io"),
        BUILTIN("events.k8s.io", "v1", "events", "event", "Event", "ev", "", true, "k8s.io.api.events.v1.Event", KUBE_RO, 0, "", "events"),
        BUILTIN("apiextensions.k8s.io", "v1", "customresourcedefinitions", "customresourcedefinition", "CustomResourceDefinition",
                "crd crds", "api-extensions", false, EXT "CustomResourceDefinition", KUBE_RO, 0, "",
                "customresourcedefinitions.apiextensions.k8s.io"),
        BUILTIN("authentication.k8s.io", "v1", "tokenreviews", "tokenreview", "TokenReview", "", "", false,
                "k8s.io.api.authentication.v1.TokenReview", KUBE_CREATE, 0, "", ""),
        BUILTIN("authentication.k8s.io", "v1", "selfsubjectreviews", "selfsubjectreview", "SelfSubjectReview", "", "", false,
                "k8s.io.api.authentication.v1.SelfSubjectReview", KUBE_CREATE, 0, "", ""),
        BUILTIN("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "selfsubjectaccessreview", "SelfSubjectAccessReview", "", "",
                false, "k8s.io.api.authorization.v1.SelfSubjectAccessReview", KUBE_CREATE, 0, "", ""),
        BUILTIN("authorization.k8s.io", "v1", "subjectaccessreviews", "subjectaccessreview", "SubjectAccessReview", "", "", false,
                "k8s.io.api.authorization.v1.SubjectAccessReview", KUBE_CREATE, 0, "", ""),

        NETWORKING("v1", "destinationrules", "destinationrule", "DestinationRule", "dr", NET "DestinationRule"),
        NETWORKING("v1", "gateways", "gateway", "Gateway", "gw", NET "Gateway"),
        NETWORKING("v1", "serviceentries", "serviceentry", "ServiceEntry", "se", NET "ServiceEntry"),
        NETWORKING("v1", "sidecars", "sidecar", "Sidecar", "", NET "Sidecar"),
        NETWORKING("v1", "virtualservices", "virtualservice", "VirtualService", "vs", NET "VirtualService"),
        NETWORKING("v1", "workloadentries", "workloadentry", "WorkloadEntry", "we", NET "WorkloadEntry"),
        NETWORKING("v1", "workloadgroups", "workloadgroup", "WorkloadGroup", "wg", NET "WorkloadGroup"),
        NETWORKING("v1beta1", "destinationrules", "destinationrule", "DestinationRule", "dr", NET "DestinationRule"),
        NETWORKING("v1beta1", "gateways", "gateway", "Gateway", "gw", NET "Gateway"),
        NETWORKING("v1beta1", "proxyconfigs", "proxyconfig", "ProxyConfig", "", "istio.networking.v1beta1.ProxyConfig"),
        NETWORKING("v1beta1", "serviceentries", "serviceentry", "ServiceEntry", "se", NET "ServiceEntry"),
        NETWORKING("v1beta1", "sidecars", "sidecar", "Sidecar", "", NET "Sidecar"),
        NETWORKING("v1beta1", "virtualservices", "virtualservice", "VirtualService", "vs", NET "VirtualService"),
        NETWORKING("v1beta1", "workloadentries", "workloadentry", "WorkloadEntry", "we", NET "WorkloadEntry"),
        NETWORKING("v1beta1", "workloadgroups", "workloadgroup", "WorkloadGroup", "wg", NET "WorkloadGroup"),
        NETWORKING("v1alpha3", "destinationrules", "destinationrule", "DestinationRule", "dr", NET "DestinationRule"),
        NETWORKING("v1alpha3", "envoyfilters", "envoyfilter", "EnvoyFilter", "", NET "EnvoyFilter"),
        NETWORKING("v1alpha3", "gateways", "gateway", "Gateway", "gw", NET "Gateway"),
        NETWORKING("v1alpha3", "serviceentries", "serviceentry", "ServiceEntry", "se", NET "ServiceEntry"),
        NETWORKING("v1alpha3", "sidecars", "sidecar", "Sidecar", "", NET "Sidecar"),
        NETWORKING("v1alpha3", "virtualservices", "virtualservice", "VirtualService", "vs", NET "VirtualService"),
        NETWORKING("v1alpha3", "workloadentries", "workloadentry", "WorkloadEntry", "we", NET "WorkloadEntry"),
        NETWORKING("v1alpha3", "workloadgroups", "workloadgroup", "WorkloadGroup", "wg", NET "WorkloadGroup"),
        SECURITY("v1", "authorizationpolicies", "authorizationpolicy", "AuthorizationPolicy", "ap",
                 "istio.security.v1beta1.AuthorizationPolicy"),
        SECURITY("v1", "peerauthentications", "peerauthentication", "PeerAuthentication", "pa",
                 "istio.security.v1beta1.PeerAuthentication"),
        SECURITY("v1", "requestauthentications", "requestauthentication", "RequestAuthentication", "ra",
                 "istio.security.v1beta1.RequestAuthentication"),
        SECURITY("v1beta1", "authorizationpolicies", "authorizationpolicy", "AuthorizationPolicy", "ap",
                 "istio.security.v1beta1.AuthorizationPolicy"),
        SECURITY("v1beta1", "peerauthentications", "peerauthentication", "PeerAuthentication", "pa",
                 "istio.security.v1beta1.PeerAuthentication"),
        SECURITY("v1beta1", "requestauthentications", "requestauthentication", "RequestAuthentication", "ra",
                 "istio.security.v1beta1.RequestAuthentication"),
        CUSTOM("telemetry.istio.io", "v1", "telemetries", "telemetry", "Telemetry", "telemetry", "istio-io telemetry-istio-io",
               "istio.telemetry.v1alpha1.Telemetry"),
        CUSTOM("telemetry.istio.io", "v1alpha1", "telemetries", "telemetry", "Telemetry", "telemetry", "istio-io telemetry-istio-io",
               "istio.telemetry.v1alpha1.Telemetry"),
        CUSTOM("extensions.istio.io", "v1alpha1", "wasmplugins", "wasmplugin", "WasmPlugin", "", "istio-io extensions-istio-io",
               "istio.extensions.v1alpha1.WasmPlugin"),
};
const unsigned kube_resources_n = ARRAY_LEN(kube_resources);

struct kube_bucket_ids kube_b;

static const struct kube_resource *buckets[ARRAY_LEN(kube_resources)];
static unsigned buckets_n;
static char api_versions[ARRAY_LEN(kube_resources)][64];
static char qualified[ARRAY_LEN(kube_resources)][96];

static void name_buckets(void)
{
        const struct {
                const char *name;
                unsigned *id;
        } named[] = {
                { "namespaces", &kube_b.namespaces },
                { "nodes", &kube_b.nodes },
                { "pods", &kube_b.pods },
                { "services", &kube_b.services },
                { "endpoints", &kube_b.endpoints },
                { "endpointslices.discovery.k8s.io", &kube_b.endpointslices },
                { "configmaps", &kube_b.configmaps },
                { "serviceaccounts", &kube_b.serviceaccounts },
                { "secrets", &kube_b.secrets },
                { "events", &kube_b.events },
                { "replicasets.apps", &kube_b.replicasets },
                { "deployments.apps", &kube_b.deployments },
        };

        for (size_t i = 0; i < ARRAY_LEN(named); i++)
                *named[i].id = (unsigned)kube_bucket_find(str_of(named[i].name));
}

void kube_kinds_init(void)
{
        if (buckets_n)
                return;
        for (unsigned i = 0; i < kube_resources_n; i++) {
                struct kube_resource *r = &kube_resources[i];

                r->desc = pb_type(str_of(r->type));
                snprintf(api_versions[i], sizeof(api_versions[i]), "%s%s%s", r->group, *r->group ? "/" : "", r->version);
                snprintf(qualified[i], sizeof(qualified[i]), "%s%s%s", r->plural, *r->group ? "." : "", r->group);
                if (!*r->bucket)
                        continue;
                int id = kube_bucket_find(str_of(r->bucket));
                if (id < 0) {
                        id = (int)buckets_n;
                        buckets[buckets_n++] = r;
                        r->storage = true;
                }
                r->bucket_id = (unsigned)id;
        }
        name_buckets();
}

unsigned kube_buckets_n(void)
{
        return buckets_n;
}

const struct kube_resource *kube_bucket_resource(unsigned bucket_id)
{
        return buckets[bucket_id];
}

int kube_bucket_find(struct str name)
{
        for (unsigned i = 0; i < buckets_n; i++)
                if (str_eqc(name, buckets[i]->bucket))
                        return (int)i;
        return -1;
}

const struct kube_resource *kube_resource_find(struct str group, struct str version, struct str plural)
{
        for (unsigned i = 0; i < kube_resources_n; i++) {
                const struct kube_resource *r = &kube_resources[i];

                if (r->desc && str_eqc(plural, r->plural) && str_eqc(group, r->group) && str_eqc(version, r->version))
                        return r;
        }
        return NULL;
}

const struct kube_resource *kube_resource_kind(struct str group, struct str version, struct str kind)
{
        for (unsigned i = 0; i < kube_resources_n; i++) {
                const struct kube_resource *r = &kube_resources[i];

                if (r->desc && str_eqc(kind, r->kind) && str_eqc(group, r->group) && str_eqc(version, r->version))
                        return r;
        }
        return NULL;
}

bool kube_group_version_served(struct str group, struct str version)
{
        for (unsigned i = 0; i < kube_resources_n; i++)
                if (kube_resources[i].desc && str_eqc(group, kube_resources[i].group) && str_eqc(version, kube_resources[i].version))
                        return true;
        return false;
}

const char *kube_api_version(const struct kube_resource *r)
{
        return api_versions[r - kube_resources];
}

const char *kube_qualified(const struct kube_resource *r)
{
        return qualified[r - kube_resources];
}

const ProtobufCFieldDescriptor *kube_field(const ProtobufCMessageDescriptor *m, struct str json_name)
{
        char name[96];

        if (json_name.n >= sizeof(name))
                return NULL;
        memcpy(name, json_name.p, json_name.n);
        name[json_name.n] = 0;
        return protobuf_c_message_descriptor_get_field_by_name(m, name);
}

bool kube_field_is_map(const ProtobufCFieldDescriptor *f)
{
        if (f->label != PROTOBUF_C_LABEL_REPEATED || f->type != PROTOBUF_C_TYPE_MESSAGE)
                return false;
        const ProtobufCMessageDescriptor *m = f->descriptor;

        return m->n_fields == 2 && str_ends(str_of(m->short_name), STR("Entry")) && !strcmp(m->fields[0].name, "key") &&
               !strcmp(m->fields[1].name, "value");
}

/* Facts of the Kubernetes API: the merge keys of its list types. Sorted by nothing; few enough to scan. */
static const struct kube_patch_rule rules[] = {
        { "ObjectMeta", "ownerReferences", "uid", true, false },
        { "ObjectMeta", "finalizers", "", true, false },
        { "PodSpec", "volumes", "name", true, true },
        { "PodSpec", "initContainers", "name", true, false },
        { "PodSpec", "containers", "name", true, false },
        { "PodSpec", "ephemeralContainers", "name", true, false },
        { "PodSpec", "imagePullSecrets", "name", true, false },
        { "PodSpec", "hostAliases", "ip", true, false },
        { "PodSpec", "topologySpreadConstraints", "topologyKey", true, false },
        { "PodSpec", "schedulingGates", "name", true, false },
        { "PodSpec", "resourceClaims", "name", true, true },
        { "Container", "ports", "containerPort", true, false },
        { "Container", "env", "name", true, false },
        { "Container", "volumeMounts", "mountPath", true, false },
        { "Container", "volumeDevices", "devicePath", true, false },
        { "EphemeralContainer", "ports", "containerPort", true, false },
        { "EphemeralContainer", "env", "name", true, false },
        { "EphemeralContainer", "volumeMounts", "mountPath", true, false },
        { "EphemeralContainer", "volumeDevices", "devicePath", true, false },
        { "ContainerStatus", "volumeMounts", "mountPath", true, false },
        { "PodStatus", "conditions", "type", true, false },
        { "PodStatus", "podIPs", "ip", true, false },
        { "PodStatus", "hostIPs", "ip", true, false },
        { "ServiceSpec", "ports", "port", true, false },
        { "ServiceStatus", "conditions", "type", true, false },
        { "ServiceAccount", "secrets", "name", true, false },
        { "NodeSpec", "podCIDRs", "", true, false },
        { "NodeStatus", "conditions", "type", true, false },
        { "NodeStatus", "addresses", "type", true, false },
        { "NamespaceStatus", "conditions", "type", true, false },
        { "DeploymentSpec", "strategy", NULL, false, true },
        { "DeploymentStatus", "conditions", "type", true, false },
        { "ReplicaSetStatus", "conditions", "type", true, false },
};

const struct kube_patch_rule *kube_patch_rule(const ProtobufCMessageDescriptor *m, struct str field)
{
        if (!m)
                return NULL;
        for (size_t i = 0; i < ARRAY_LEN(rules); i++)
                if (str_eqc(field, rules[i].field) && !strcmp(m->short_name, rules[i].message))
                        return &rules[i];
        return NULL;
}

/* The types that the first byte of an input chooses from. */
#ifndef FUZZ_TYPES_H
#define FUZZ_TYPES_H

static const char *const fuzz_types[] = {
        "istio.networking.v1alpha3.VirtualService",
        "istio.networking.v1alpha3.DestinationRule",
        "istio.networking.v1alpha3.EnvoyFilter",
        "istio.mesh.v1alpha1.MeshConfig",
        "istio.security.v1beta1.PeerAuthentication",
        "envoy.config.listener.v3.Listener",
        "envoy.config.cluster.v3.Cluster",
        "envoy.config.route.v3.RouteConfiguration",
        "envoy.config.bootstrap.v3.Bootstrap",
        "k8s.io.api.core.v1.Pod",
        "k8s.io.api.core.v1.Service",
        "google.protobuf.Struct",
        "google.protobuf.Any",
        "google.protobuf.FieldMask",
};

#define FUZZ_TYPES_N (sizeof(fuzz_types) / sizeof(fuzz_types[0]))

#endif

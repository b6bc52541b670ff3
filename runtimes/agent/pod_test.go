package agent_test

import corev1 "k8s.io/api/core/v1"

// podTemplate is the plainest there is.
var podTemplate = corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "web:1"}}}}

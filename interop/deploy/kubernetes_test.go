// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// TestKubernetes builds each kustomization, and checks that no field is unknown, that
// objects refer to each other by the right names, that pods are confined, and that berth
// serves with their arguments.
func TestKubernetes(t *testing.T) {
	kustomize := program(t, "kustomize", "go install sigs.k8s.io/kustomize/kustomize/v5@v5.7.1")
	for name, want := range map[string][]string{
		"single": {"Service", "StatefulSet"},
		"s3":     {"ConfigMap", "CronJob", "Deployment", "PodDisruptionBudget", "Service", "ServiceAccount"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := exec.Command(kustomize, "build", filepath.Join(files, "kubernetes", name)).Output()
			qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", stderr(err)))
			objects := decode(t, string(out))
			qt.Check(t, qt.DeepEquals(slices.Sorted(maps.Keys(objects)), want))
			for kind, object := range objects {
				if pod, ok := podTemplate(object); ok {
					checkPod(t, kind, pod.Spec, objects)
				}
			}
			checkSelectors(t, objects)
			for _, object := range objects {
				if pod, ok := podTemplate(object); ok && pod.Spec.Containers[0].Args[0] == "serve" {
					serves(t, pod.Spec.Containers[0].Args, true)
				}
			}
		})
	}
}

// stderr returns what a command has printed before it failed.
func stderr(err error) []byte {
	if e, ok := err.(*exec.ExitError); ok {
		return e.Stderr
	}
	return nil
}

// decode returns the objects of a stream of YAML by kind. It rejects unknown and
// duplicate fields.
func decode(t *testing.T, stream string) map[string]runtime.Object {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{appsv1.AddToScheme, batchv1.AddToScheme, corev1.AddToScheme, policyv1.AddToScheme} {
		qt.Assert(t, qt.IsNil(add(scheme)))
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	objects := make(map[string]runtime.Object)
	for document := range strings.SplitSeq(stream, "\n---\n") {
		object, kind, err := decoder.Decode([]byte(document), nil, nil)
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", document))
		objects[kind.Kind] = object
	}
	return objects
}

// podTemplate returns the pods that an object makes, if any.
func podTemplate(object runtime.Object) (corev1.PodTemplateSpec, bool) {
	switch o := object.(type) {
	case *appsv1.StatefulSet:
		return o.Spec.Template, true
	case *appsv1.Deployment:
		return o.Spec.Template, true
	case *batchv1.CronJob:
		return o.Spec.JobTemplate.Spec.Template, true
	}
	return corev1.PodTemplateSpec{}, false
}

// checkPod checks that a pod can do nothing but serve, and that the names that it uses
// exist.
func checkPod(t *testing.T, kind string, pod corev1.PodSpec, objects map[string]runtime.Object) {
	t.Helper()
	note := qt.Commentf("%s", kind)
	qt.Assert(t, qt.HasLen(pod.Containers, 1), note)
	c := pod.Containers[0]
	qt.Assert(t, qt.IsTrue(pod.SecurityContext != nil && c.SecurityContext != nil), note)
	qt.Check(t, qt.DeepEquals(pod.SecurityContext.RunAsNonRoot, ptr(true)), note)
	for _, id := range []*int64{pod.SecurityContext.RunAsUser, pod.SecurityContext.RunAsGroup, pod.SecurityContext.FSGroup} {
		qt.Check(t, qt.DeepEquals(id, ptr[int64](65532)), note)
	}
	qt.Check(t, qt.DeepEquals(pod.SecurityContext.SeccompProfile, &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}), note)
	qt.Check(t, qt.DeepEquals(c.SecurityContext.ReadOnlyRootFilesystem, ptr(true)), note)
	qt.Check(t, qt.DeepEquals(c.SecurityContext.AllowPrivilegeEscalation, ptr(false)), note)
	qt.Check(t, qt.DeepEquals(c.SecurityContext.Capabilities, &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}), note)
	qt.Check(t, qt.IsFalse(c.Resources.Limits.Memory().IsZero()), note)
	qt.Check(t, qt.Matches(c.Image, `ghcr\.io/berth-oci/berth:v.+`), note)

	account, _ := objects["ServiceAccount"].(*corev1.ServiceAccount)
	switch {
	case account != nil:
		qt.Check(t, qt.Equals(pod.ServiceAccountName, account.Name), note)
		qt.Check(t, qt.DeepEquals(account.AutomountServiceAccountToken, ptr(false)), note)
	default:
		qt.Check(t, qt.DeepEquals(pod.AutomountServiceAccountToken, ptr(false)), note)
	}
	for _, env := range c.Env {
		settings := objects["ConfigMap"].(*corev1.ConfigMap)
		qt.Check(t, qt.Equals(env.ValueFrom.ConfigMapKeyRef.Name, settings.Name), note)
		qt.Check(t, qt.Not(qt.Equals(settings.Data[env.ValueFrom.ConfigMapKeyRef.Key], "")), note)
		qt.Check(t, qt.StringContains(fmt.Sprint(c.Args), "$("+env.Name+")"), note)
	}
	if c.Args[0] == "serve" {
		qt.Check(t, qt.Equals(c.ReadinessProbe.HTTPGet.Path, "/readyz"))
		qt.Check(t, qt.Equals(c.LivenessProbe.HTTPGet.Path, "/healthz"))
		for _, probe := range []*corev1.Probe{c.ReadinessProbe, c.LivenessProbe} {
			qt.Check(t, qt.Equals(probe.HTTPGet.Port, intstr.FromString(c.Ports[0].Name)))
		}
		qt.Check(t, qt.DeepEquals(pod.TerminationGracePeriodSeconds, ptr[int64](75)))
	}
	volumes := make(map[string]bool)
	for _, v := range pod.Volumes {
		volumes[v.Name] = true
	}
	if set, ok := objects["StatefulSet"].(*appsv1.StatefulSet); ok {
		for _, claim := range set.Spec.VolumeClaimTemplates {
			volumes[claim.Name] = true
		}
	}
	for _, mount := range c.VolumeMounts {
		qt.Check(t, qt.IsTrue(volumes[mount.Name]), qt.Commentf("%s: volume %s", kind, mount.Name))
	}
}

// checkSelectors checks that each selector matches the pods that serve, and no others.
func checkSelectors(t *testing.T, objects map[string]runtime.Object) {
	t.Helper()
	selectors := make(map[string]map[string]string)
	for kind, object := range objects {
		switch o := object.(type) {
		case *appsv1.StatefulSet:
			selectors[kind] = o.Spec.Selector.MatchLabels
		case *appsv1.Deployment:
			selectors[kind] = o.Spec.Selector.MatchLabels
			affinity := o.Spec.Template.Spec.Affinity.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution[0]
			selectors["PodAntiAffinity"] = affinity.PodAffinityTerm.LabelSelector.MatchLabels
			selectors["TopologySpread"] = o.Spec.Template.Spec.TopologySpreadConstraints[0].LabelSelector.MatchLabels
		case *policyv1.PodDisruptionBudget:
			selectors[kind] = o.Spec.Selector.MatchLabels
		case *corev1.Service:
			selectors[kind] = o.Spec.Selector
			qt.Check(t, qt.Equals(o.Spec.Ports[0].TargetPort, intstr.FromString("http")))
		}
	}
	for kind, object := range objects {
		pod, ok := podTemplate(object)
		if !ok {
			continue
		}
		serves := pod.Spec.Containers[0].Args[0] == "serve"
		for by, selector := range selectors {
			matches := len(selector) > 0
			for label, value := range selector {
				matches = matches && pod.Labels[label] == value
			}
			qt.Check(t, qt.Equals(matches, serves), qt.Commentf("the selector of %s and the pods of %s", by, kind))
		}
	}
}

func ptr[T any](v T) *T { return &v }

// A line in, a line out: upstream's answers on patches and field ownership, for comparison with ours. See README.md.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/managedfields/managedfieldstest"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

type question struct {
	Op         string                 `json:"op"`
	Converter  string                 `json:"converter"`
	Models     json.RawMessage        `json:"models"`
	Group      string                 `json:"group"`
	Version    string                 `json:"version"`
	Kind       string                 `json:"kind"`
	Manager    string                 `json:"manager"`
	Force      bool                   `json:"force"`
	Live       map[string]interface{} `json:"live"`
	New        map[string]interface{} `json:"new"`
	Original   json.RawMessage        `json:"original"`
	Modified   json.RawMessage        `json:"modified"`
	Current    json.RawMessage        `json:"current"`
	Patch      json.RawMessage        `json:"patch"`
}

type answer struct {
	Object interface{} `json:"object,omitempty"`
	Error  string      `json:"error,omitempty"`
}

var converters = map[string]managedfields.TypeConverter{}

// structs is what strategic merge patches look up their rules in, and what objects are read into and written from.
func structOf(kind string) (interface{}, error) {
	switch kind {
	case "Pod":
		return &corev1.Pod{}, nil
	case "Service":
		return &corev1.Service{}, nil
	case "ServiceAccount":
		return &corev1.ServiceAccount{}, nil
	case "ConfigMap":
		return &corev1.ConfigMap{}, nil
	case "Node":
		return &corev1.Node{}, nil
	case "PersistentVolumeClaim":
		return &corev1.PersistentVolumeClaim{}, nil
	case "Deployment":
		return &appsv1.Deployment{}, nil
	case "StatefulSet":
		return &appsv1.StatefulSet{}, nil
	case "DaemonSet":
		return &appsv1.DaemonSet{}, nil
	case "Job":
		return &batchv1.Job{}, nil
	case "CronJob":
		return &batchv1.CronJob{}, nil
	case "NetworkPolicy":
		return &networkingv1.NetworkPolicy{}, nil
	case "Ingress":
		return &networkingv1.Ingress{}, nil
	case "RoleBinding":
		return &rbacv1.RoleBinding{}, nil
	}
	return nil, fmt.Errorf("no struct for %s", kind)
}

func decoded(data []byte, err error) (interface{}, error) {
	if err != nil {
		return nil, err
	}
	var out interface{}
	return out, json.Unmarshal(data, &out)
}

func ask(q *question) (interface{}, error) {
	switch q.Op {
	case "converter":
		models := map[string]*spec.Schema{}
		if err := json.Unmarshal(q.Models, &models); err != nil {
			return nil, err
		}
		converter, err := managedfields.NewTypeConverter(models, false)
		if err != nil {
			return nil, err
		}
		converters[q.Converter] = converter
		return true, nil
	case "apply", "update":
		gvk := schema.GroupVersionKind{Group: q.Group, Version: q.Version, Kind: q.Kind}
		manager := managedfieldstest.NewFakeFieldManager(converters[q.Converter], gvk)
		live, changed := &unstructured.Unstructured{Object: q.Live}, &unstructured.Unstructured{Object: q.New}
		if q.Op == "apply" {
			out, err := manager.Apply(live, changed, q.Manager, q.Force)
			return out, err
		}
		out, err := manager.Update(live, changed, q.Manager)
		return out, err
	case "struct":
		holder, err := structOf(q.Kind)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(q.Original, holder); err != nil {
			return nil, err
		}
		return holder, nil
	case "strategic":
		holder, err := structOf(q.Kind)
		if err != nil {
			return nil, err
		}
		return decoded(strategicpatch.StrategicMergePatch(q.Original, q.Patch, holder))
	case "twoway":
		holder, err := structOf(q.Kind)
		if err != nil {
			return nil, err
		}
		return decoded(strategicpatch.CreateTwoWayMergePatch(q.Original, q.Modified, holder))
	case "threeway":
		holder, err := structOf(q.Kind)
		if err != nil {
			return nil, err
		}
		meta, err := strategicpatch.NewPatchMetaFromStruct(holder)
		if err != nil {
			return nil, err
		}
		return decoded(strategicpatch.CreateThreeWayMergePatch(q.Original, q.Modified, q.Current, meta, true))
	}
	return nil, fmt.Errorf("unknown question %q", q.Op)
}

func safely(q *question) (out interface{}, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return ask(q)
}

func main() {
	lines := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := bufio.NewWriter(os.Stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		q := &question{}
		reply := answer{}
		if err := json.Unmarshal(line, q); err != nil {
			reply.Error = err.Error()
		} else if reply.Object, err = safely(q); err != nil {
			reply.Object, reply.Error = nil, err.Error()
		}
		data, err := json.Marshal(reply)
		if err != nil {
			data, _ = json.Marshal(answer{Error: err.Error()})
		}
		out.Write(append(data, '\n'))
		out.Flush()
	}
}

package kubeapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/tandem-gitops/tandem/reconciler/state"
)

func groupVersionKind(r *resource) schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: r.group, Version: r.version, Kind: r.kind}
}

// expired tells a client to list again.
func expired(asked, floor, now state.Seq) error {
	return apierrors.NewResourceExpired(fmt.Sprintf("resource version %d: this server can tell what changed from %d to %d", asked, floor, now))
}

// A filter is what a list or watch is restricted to.
type filter struct {
	resource  *resource
	namespace string
	name      string
	labels    labels.Selector
	fields    fields.Selector
}

func newFilter(c *call, t target) (filter, error) {
	f := filter{resource: t.resource, namespace: t.namespace, name: t.name}
	q := c.r.URL.Query()
	var err error
	if f.labels, err = labels.Parse(q.Get("labelSelector")); err != nil {
		return f, apierrors.NewBadRequest(fmt.Sprintf("labelSelector: %v", err))
	}
	if f.fields, err = fields.ParseSelector(q.Get("fieldSelector")); err != nil {
		return f, apierrors.NewBadRequest(fmt.Sprintf("fieldSelector: %v", err))
	}
	known := f.fieldsOf(nil)
	for _, r := range f.fields.Requirements() {
		if !known.Has(r.Field) {
			return f, apierrors.NewBadRequest(fmt.Sprintf("fieldSelector: %s have no field %s to select by", t.resource.plural, r.Field))
		}
	}
	return f, nil
}

// fieldsOf are the fields that an object can be selected by; of no object,
// their names.
func (f *filter) fieldsOf(o object) fields.Set {
	set := fields.Set{}
	if f.resource.fields != nil {
		set = f.resource.fields(o)
	}
	set["metadata.name"], set["metadata.namespace"] = "", ""
	if o != nil {
		set["metadata.name"], set["metadata.namespace"] = o.GetName(), o.GetNamespace()
	}
	return set
}

func (f *filter) match(e *entry) bool {
	if e == nil || f.namespace != "" && e.key.namespace != f.namespace || f.name != "" && e.key.name != f.name {
		return false
	}
	if !f.labels.Empty() && !f.labels.Matches(labels.Set(e.object.GetLabels())) {
		return false
	}
	return f.fields.Empty() || f.fields.Matches(f.fieldsOf(e.object))
}

func (a *api) list(c *call, t target) error {
	f, err := newFilter(c, t)
	if err != nil {
		return err
	}
	all, seq := a.caches[t.resource].all()
	es := all[:0:0]
	for _, e := range all {
		if f.match(e) {
			es = append(es, e)
		}
	}
	version := strconv.FormatUint(uint64(seq), 10)
	if format := tableFormat(c.r); format.wanted {
		table := newTable(t.resource, format, true)
		table.ResourceVersion = version
		for _, e := range es {
			row, err := format.row(t.resource, e, time.Now())
			if err != nil {
				return err
			}
			table.Rows = append(table.Rows, row)
		}
		writeJSON(c.w, http.StatusOK, table)
		return nil
	}
	items := make([]json.RawMessage, 0, len(es))
	for _, e := range es {
		items = append(items, e.JSON())
	}
	writeJSON(c.w, http.StatusOK, struct {
		metav1.TypeMeta `json:",inline"`
		metav1.ListMeta `json:"metadata"`
		Items           []json.RawMessage `json:"items"`
	}{
		metav1.TypeMeta{Kind: t.resource.kind + "List", APIVersion: t.resource.apiVersion()},
		metav1.ListMeta{ResourceVersion: version},
		items,
	})
	return nil
}

func (a *api) get(c *call, t target) error {
	e := a.caches[t.resource].find(key{t.namespace, t.name})
	if e == nil {
		return noSuch(t)
	}
	if format := tableFormat(c.r); format.wanted {
		table := newTable(t.resource, format, true)
		table.ResourceVersion = e.object.GetResourceVersion()
		row, err := format.row(t.resource, e, time.Now())
		if err != nil {
			return err
		}
		table.Rows = append(table.Rows, row)
		writeJSON(c.w, http.StatusOK, table)
		return nil
	}
	c.w.Header().Set("Content-Type", "application/json")
	_, _ = c.w.Write(e.JSON())
	return nil
}

func noSuch(t target) error {
	return apierrors.NewNotFound(schema.GroupResource{Group: t.resource.group, Resource: t.resource.plural}, t.name)
}

// A format is how a client wants Tables.
type format struct {
	wanted  bool
	include metav1.IncludeObjectPolicy
}

func tableFormat(r *http.Request) format {
	f := format{include: metav1.IncludeObjectPolicy(r.URL.Query().Get("includeObject"))}
	if f.include == "" {
		f.include = metav1.IncludeMetadata
	}
	// The first media type that is understood decides.
	for m := range strings.SplitSeq(r.Header.Get("Accept"), ",") {
		m = strings.ReplaceAll(strings.TrimSpace(m), " ", "")
		switch {
		case strings.HasPrefix(m, "application/json") && strings.Contains(m, "as=Table") && strings.Contains(m, "v=v1;") || strings.HasSuffix(m, "v=v1") && strings.Contains(m, "as=Table"):
			f.wanted = true
			return f
		case m == "application/json" || m == "*/*":
			return f
		}
	}
	return f
}

// newTable is an empty table; the rows of a watch after the first carry no columns.
func newTable(r *resource, _ format, columns bool) *metav1.Table {
	t := &metav1.Table{TypeMeta: metav1.TypeMeta{Kind: "Table", APIVersion: "meta.k8s.io/v1"}, Rows: []metav1.TableRow{}}
	t.ColumnDefinitions = []metav1.TableColumnDefinition{}
	if columns {
		t.ColumnDefinitions = r.columns
	}
	return t
}

func (f format) row(r *resource, e *entry, now time.Time) (metav1.TableRow, error) {
	row := metav1.TableRow{Cells: r.row(e.object, now)}
	switch f.include {
	case metav1.IncludeNone:
	case metav1.IncludeObject:
		row.Object = runtime.RawExtension{Raw: e.JSON()}
	case metav1.IncludeMetadata:
		raw, err := json.Marshal(partial(e.object))
		if err != nil {
			return row, fmt.Errorf("marshal metadata: %w", err)
		}
		row.Object = runtime.RawExtension{Raw: raw}
	default:
		return row, apierrors.NewBadRequest(fmt.Sprintf("includeObject %q: want None, Metadata or Object", f.include))
	}
	return row, nil
}

// partial is an object's metadata alone.
func partial(o object) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{
		TypeMeta: metav1.TypeMeta{Kind: "PartialObjectMetadata", APIVersion: "meta.k8s.io/v1"},
		ObjectMeta: metav1.ObjectMeta{
			Name: o.GetName(), Namespace: o.GetNamespace(), UID: o.GetUID(), ResourceVersion: o.GetResourceVersion(), Generation: o.GetGeneration(),
			CreationTimestamp: o.GetCreationTimestamp(), DeletionTimestamp: o.GetDeletionTimestamp(),
			Labels: o.GetLabels(), Annotations: o.GetAnnotations(), OwnerReferences: o.GetOwnerReferences(),
		},
	}
}

// writeRaw sends a value under the content type that is set already.
func writeRaw(w http.ResponseWriter, v any) {
	if err := json.NewEncoder(w).Encode(v); err != nil {
		return // the client has gone
	}
}

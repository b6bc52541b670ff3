package state

import (
	"reflect"
	"slices"
)

// Kinds are the numbers of all facts, ascending.
func Kinds() []Kind {
	var ks []Kind
	for k := range facts() {
		ks = append(ks, k)
	}
	slices.Sort(ks)
	return ks
}

// kindNames are the names of the facts' types.
var kindNames = func() map[Kind]string { //nolint:gochecknoglobals // computed once from types alone
	names := map[Kind]string{}
	for k, empty := range facts() {
		names[k] = reflect.TypeOf(empty()).Elem().Name()
	}
	return names
}()

// String is the fact's name: "PodPlaced".
func (k Kind) String() string {
	if name, ok := kindNames[k]; ok {
		return name
	}
	return "Unknown"
}

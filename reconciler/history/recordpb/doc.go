// Package recordpb encodes Go structs as deterministic protobuf, by the field
// numbers in their `pb:"n"` tags.
//
//	sources ──► render ──► reconciler ──Record──► [ recordpb ] ──bytes──► history
//
// In: records, snapshots and wire messages as plain structs. Out: proto3 bytes
// that any protobuf tool reads with record.proto; equal values give equal bytes.
// It refuses to know what a field means. A field without a tag, or tagged "-",
// isn't written; a type that has no encoding here is refused by name.
//
// What is written: zero values are left out; fields in the order of their
// numbers; signed integers as zigzag (sint64), unsigned ones and enums as plain
// varints; arrays of bytes as bytes; slices of numbers packed; maps sorted by
// key; time.Duration as sint64 nanoseconds; netip.Addr as its binary form.
package recordpb

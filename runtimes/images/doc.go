// Package images finds container images and reads their content.
//
//	sources ──► render ──► reconciler ──► runtimes/[ images ] ──► containerd, hcs
//	                          ▲                  │   ▲
//	                          └──platforms, digest   └── registries, OCI layout directories
//
// In: the name of an image as a manifest writes it. Out: the digest it means
// now and the platforms behind it (Look), and the verified bytes of one
// platform (Fetch). An image found in a layout directory is taken from there;
// only then is its registry asked. It is the only user of go-containerregistry
// and knows nothing of nodes or of how a layer is unpacked.
package images

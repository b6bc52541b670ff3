package manifest

import (
	"fmt"
	"math"
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// id validates the number of a user or group.
func (c *validator) id(p Path, n *int64) {
	if n != nil && (*n < 0 || *n > math.MaxInt32) {
		c.fail(p, fmt.Sprintf("must be between 0 and %d, is %d", math.MaxInt32, *n), "give a number in that range")
	}
}

// mode validates a file's. Who writes one in decimal digits means octal ones.
func (c *validator) mode(p Path, mode *int32) {
	if mode == nil || *mode >= 0 && *mode <= 0o777 {
		return
	}
	remedy := "write one such as 0440"
	text := strconv.Itoa(int(*mode))
	if n, err := strconv.ParseInt(text, 8, 32); err == nil && n >= 0 && n <= 0o777 {
		remedy = last(p) + ": 0" + text
	}
	is := fmt.Sprintf("0%o in octal", *mode)
	if *mode < 0 {
		is = text
	}
	c.fail(p, "must be between 0 and 0777, is "+is, remedy)
}

// volumeModes validates the modes that a volume gives its files.
func (c *validator) volumeModes(p Path, v *corev1.Volume) {
	if v.ConfigMap != nil {
		c.mode(p.Key("configMap", "defaultMode"), v.ConfigMap.DefaultMode)
	}
	if v.Secret != nil {
		c.mode(p.Key("secret", "defaultMode"), v.Secret.DefaultMode)
	}
	if v.Projected != nil {
		c.mode(p.Key("projected", "defaultMode"), v.Projected.DefaultMode)
	}
	if v.DownwardAPI != nil {
		c.mode(p.Key("downwardAPI", "defaultMode"), v.DownwardAPI.DefaultMode)
	}
}

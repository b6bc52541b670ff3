package helm

import (
	"context"
	"fmt"
	"strings"
)

// refusedError says that a template called what a render must not do.
type refusedError struct{ name, why, remedy string }

func (e *refusedError) Error() string { return "it " + e.why }

// maxItems bounds lists that a template makes of a number, and maxRepeat the
// bytes of a text.
const (
	maxItems  = 100_000
	maxRepeat = 4 << 20
)

// functions take the place of Helm's own functions that ask chance, the clock or
// the network (they would make every render another one) and of those that
// make something huge of a number. `lookup` answers as `helm template` does:
// nothing is there.
func functions(ctx context.Context) map[string]any {
	out := map[string]any{
		"lookup": func(string, string, string, string) (map[string]any, error) {
			return map[string]any{}, ctx.Err()
		},
		"getHostByName": refuse("getHostByName", "would ask the network", "write the address into the values"),
		"repeat": func(n int, s string) (string, error) {
			if n < 0 || n*len(s) > maxRepeat || n > maxRepeat {
				return "", &refusedError{"repeat", fmt.Sprintf("would make more than %d bytes", maxRepeat), "repeat less"}
			}
			return strings.Repeat(s, n), ctx.Err()
		},
		"until":     func(n int) ([]int, error) { return steps(ctx, 0, n, sign(n)) },
		"untilStep": func(from, to, step int) ([]int, error) { return steps(ctx, from, to, step) },
	}
	for _, name := range []string{"randAlphaNum", "randAlpha", "randAscii", "randNumeric", "randBytes", "randInt", "shuffle", "uuidv4"} {
		out[name] = refuse(name, "is another one at each render", "write the value into a values file, or into a Secret that SOPS encrypts")
	}
	for _, name := range []string{"genPrivateKey", "genCA", "genCAWithKey", "genSelfSignedCert", "genSelfSignedCertWithKey", "genSignedCert", "genSignedCertWithKey", "bcrypt", "htpasswd", "encryptAES"} {
		out[name] = refuse(name, "is another one at each render", "make it once and commit it, a Secret encrypted with SOPS")
	}
	for _, name := range []string{"now", "ago"} {
		out[name] = refuse(name, "asks the clock: each render would be another one", "remove it, or write a fixed time into the values")
	}
	return out
}

func refuse(name, why, remedy string) func(...any) (string, error) {
	return func(...any) (string, error) { return "", &refusedError{name, why, remedy} }
}

func sign(n int) int {
	if n < 0 {
		return -1
	}
	return 1
}

// steps are the numbers from one to before another, as sprig's untilStep.
func steps(ctx context.Context, from, to, step int) ([]int, error) {
	out := []int{}
	if step == 0 || (to < from) != (step < 0) {
		return out, ctx.Err()
	}
	if (to-from)/step > maxItems {
		return nil, &refusedError{"until", fmt.Sprintf("would make a list of more than %d numbers", maxItems), "count less"}
	}
	for i := from; (step > 0 && i < to) || (step < 0 && i > to); i += step {
		out = append(out, i)
	}
	return out, ctx.Err()
}
